// The explorer as a part of the live app. Plotly and the city (tiles, vectors, pictures) come once, with components
// of their own (live_city.js); the small data of the view comes with every rerun.
// data: { city, projection: { name, dimensions, packed }, colour, tile, marked: [ids], labels: of the marked ones if
// they are not 1, 2, …; path: whether a line joins them; panes, theme }

const cityOf = (live) => window.loc2vecCities?.get(live.city);

class LiveExplorer extends Explorer {
  // A click tells Python the tile and, on the map, the very point.
  pick(row, ground) {
    this.set({ tile: row });
    if (row >= 0) this.say(`Picked ${this.describe(row)}`);
    this.options.onClick({
      tile: row < 0 ? null : this.place(row),
      point: ground ? { lat: ground[0], lon: ground[1] } : null,
    });
  }

  // The app's own panels stand in for the side column.
  fillPanels() {}

  // Ring what Python found, in its order; the tile itself on top.
  marks() {
    const { ink, options: { live } } = this;
    const ring = (row, rank) => ({ row, radius: 7, colour: ink.accent, label: live.labels[rank] ?? String(rank + 1), width: 1.5 });
    const marked = live.marked.map((id) => this.tiles.rowOfId(id));
    const rings = marked.map(ring).filter(({ row }) => row >= 0);
    if (this.state.tile >= 0) rings.push({ row: this.state.tile, radius: 10, colour: ink.text, width: 2.5 });
    if (this.hovered >= 0) rings.push({ row: this.hovered, radius: 8, colour: ink.text, width: 2 });
    return { rings, path: live.path ? marked.filter((row) => row >= 0) : [] };
  }
}

async function until(ready) {
  while (!ready()) await new Promise((resolve) => setTimeout(resolve, 30));
}

async function plotly() {
  await until(() => window.Plotly);
  return window.Plotly;
}

function stateOf(live, tiles) {
  return {
    alg: live.projection.name, dim: live.projection.dimensions, colour: live.colour,
    tile: live.tile ? tiles.rowOfId(live.tile) : -1, theme: live.theme,
  };
}

// A view whose dots are there; Plotly, which moves them, may still be on its way.
async function startView(root, live, onClick) {
  await until(() => cityOf(live) && root.isConnected);
  const name = `${live.projection.name}-${live.projection.dimensions}`;
  const data = { ...cityOf(live), projections: { [name]: live.projection.packed } };
  root.className = `live-root loc2vec live ${live.panes}`;
  const explorer = new LiveExplorer(root, data, { plotly, hash: false, theme: live.theme, live, onClick });
  Object.assign(explorer.state, stateOf(live, explorer.tiles));
  explorer.recolour(false);
  explorer.start();
  if (explorer.state.tile >= 0) explorer.map.show(explorer.state.tile);
  return explorer;
}

function updateView(explorer, live) {
  explorer.options.live = live;
  const name = `${live.projection.name}-${live.projection.dimensions}`;
  explorer.data.projections[name] ??= live.projection.packed;
  explorer.set(stateOf(live, explorer.tiles));
}

// One explorer for each place in the page; a rerun changes it, another city replaces it.
async function showView(root, live, onClick) {
  root.wanted = live;
  if (root.starting) return;
  root.starting = true;
  try {
    while (root.wanted) {
      const next = root.wanted;
      root.wanted = null;
      if (root.explorer && root.shownCity === next.city + next.panes) {
        updateView(root.explorer, next);
      } else {
        root.explorer?.destroy();
        root.explorer = await startView(root, next, onClick);
        root.shownCity = next.city + next.panes;
      }
    }
  } finally {
    root.starting = false;
  }
}

export default function ({ data, parentElement, setTriggerValue }) {
  let root = parentElement.querySelector(".live-root");
  if (!root) {
    root = parentElement.appendChild(document.createElement("div"));
    root.className = "live-root";
  }
  showView(root, data, (what) => setTriggerValue("click", what));
}
