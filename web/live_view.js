// The explorer as a part of the live app. Plotly, the city (tiles, vectors) and pictures come with components of their
// own (live_plotly.js, live_city.js, live_pictures.js); the small data of the view comes with every rerun.
// data: { city, projection: { name, dimensions, packed }, colour, tile, marked: [ids], labels: of the marked ones if
// they are not 1, 2, …; path: whether a line joins them; panes, theme }

const SHEETS_AT_ONCE = 6; // in one request
const ANSWER_MS = 15_000; // a request without an answer after this time is repeated

const cityOf = (live) => window.loc2vecCities?.get(live.city);
const picturesOf = (city) => ((window.loc2vecPictures ??= {})[city] ??= new EventTarget());

// Sheets that Python draws when one of their tiles comes into view, the latest request first.
class LiveSheets extends Sheets {
  constructor(spec, onLoad, pictures, signal) {
    super(spec, onLoad);
    this.pictures = pictures;
    this.wanted = []; // numbers of sheets, the most recently needed last
    this.asked = []; // numbers in the request that is under way
    pictures.addEventListener("arrived", () => this.arrived(), { signal });
  }

  sheet(cell) {
    const number = Math.floor(cell / this.spec.per_sheet);
    return (this.images[number] ??= this.await(number));
  }

  await(number) {
    const address = this.pictures.sheets?.[number];
    if (address) return this.load(address);
    this.wanted = [...this.wanted.filter((other) => other !== number), number];
    this.timer ??= setTimeout(() => this.ask(), 30);
    return { image: null, state: "loading", done: Promise.resolve() };
  }

  ask() {
    this.timer = null;
    if (this.asked.length || !this.wanted.length || !this.pictures.ask) return;
    this.asked = this.wanted.slice(-SHEETS_AT_ONCE);
    this.pictures.ask(this.asked);
    this.overdue = setTimeout(() => this.next(), ANSWER_MS);
  }

  // Sheets that did not come, or are no longer needed, are asked for again when they are next drawn.
  arrived() {
    if (this.asked.some((number) => this.pictures.sheets?.[number])) this.next();
    else if (!this.asked.length) this.ask();
  }

  next() {
    clearTimeout(this.overdue);
    for (const number of this.wanted) delete this.images[number];
    [this.wanted, this.asked] = [[], []];
    this.onLoad();
  }
}

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

// Draw the base map as soon as it is there, and sheets of tiles when they are needed.
function receivePictures(explorer, pictures) {
  const { signal } = explorer.stops;
  const showMap = () => {
    if (pictures.map && !explorer.map.base.src) explorer.map.base.src = pictures.map;
  };
  explorer.pictures.sprites = new LiveSheets(explorer.data.sprites, () => explorer.pictureLoaded(), pictures, signal);
  pictures.addEventListener("arrived", showMap, { signal });
  showMap();
}

// A view whose dots are there; Plotly, which moves them, may still be on its way.
async function startView(root, live, onClick) {
  await until(() => cityOf(live) && root.isConnected);
  const name = `${live.projection.name}-${live.projection.dimensions}`;
  const data = { ...cityOf(live), projections: { [name]: live.projection.packed } };
  root.className = `live-root loc2vec live ${live.panes}`;
  const explorer = new LiveExplorer(root, data, { plotly, hash: false, theme: live.theme, live, onClick });
  receivePictures(explorer, picturesOf(live.city));
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
