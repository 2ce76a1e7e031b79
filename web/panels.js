// The column beside the plots: the picked tile, what is like it, arithmetic, walks, the selection.

const REASONS_SHOWN = 3;
const WALK_BETWEEN = 6;

// A small picture of a tile that picks it when clicked.
function tileButton(view, row, size, ...labels) {
  const canvas = tileCanvas(view, row, size);
  const facts = view.tiles.facts(row);
  return element("button", {
    class: "tile-button", type: "button", "data-tile": facts.id, title: `${facts.id} · ${facts.layer}`,
    "aria-label": `Tile ${facts.id}, ${facts.layer}. ${labels.filter((label) => typeof label === "string").join(", ")}`,
    onclick: () => view.pick(row),
    onpointerenter: () => view.hover(row, null, null),
    onpointerleave: () => view.hover(-1, null, null),
    onfocus: () => view.hover(row, null, null),
    onblur: () => view.hover(-1, null, null),
  }, canvas, ...labels.map((label) => element("span", { class: "tile-label" }, label)));
}

function tileCanvas(view, row, size) {
  const ratio = Math.min(2, window.devicePixelRatio || 1);
  const canvas = element("canvas", { width: size * ratio, height: size * ratio, "aria-hidden": "true" });
  canvas.style.width = canvas.style.height = `${size}px`;
  view.whenPictures(canvas, () => {
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    return view.pictures.draw(context, row, 0, 0, size * ratio, view.state.preview);
  });
  return canvas;
}

function swatch(colour) {
  const dot = element("span", { class: "swatch", "aria-hidden": "true" });
  dot.style.background = colour;
  return dot;
}

function button(text, onclick, attributes = {}) {
  return element("button", { type: "button", class: "button", onclick, ...attributes }, text);
}

function slider(label, value, [min, max, step], show, onChange) {
  const output = element("output", {}, show(value));
  const input = element("input", {
    type: "range", min, max, step, value, "aria-label": label,
    oninput: () => { output.textContent = show(Number(input.value)); },
    onchange: () => onChange(Number(input.value)),
  });
  return element("label", { class: "slider" }, element("span", {}, label), input, output);
}

// --- the picked tile ---------------------------------------------------------------------------------------

function tilePanel(view) {
  const row = view.state.tile;
  if (row < 0) return welcomePanel(view);
  const facts = view.tiles.facts(row);
  const [lat, lon] = view.tiles.centres[row];
  return element("section", { class: "tile-panel", "aria-label": "Picked tile" },
    element("div", { class: "tile-head" },
      largePicture(view, row),
      element("div", { class: "tile-facts" },
        element("h2", {}, facts.layer),
        factList([
          ["Tile", facts.id],
          ["Centre", `${lat.toFixed(5)}, ${lon.toFixed(5)}`],
          ["Zone", facts.zone],
          ["Density", `density ${Math.round(facts.density * 100)} %`],
          ["Cluster", `cluster ${view.clusterName(row)}`],
        ]),
        element("a", { href: view.tiles.osmLink(row), target: "_blank", rel: "noopener noreferrer" }, "Open in OpenStreetMap"),
        element("div", { class: "abc" }, ["a", "b", "c"].map((slot) =>
          button(slot.toUpperCase(), () => view.put(slot, row),
            { title: `Use as ${slot.toUpperCase()} in arithmetic and walks`, "aria-label": `Put into ${slot.toUpperCase()}` })),
        button("Close", () => view.pick(-1), { class: "button quiet" })))),
    layerSwitches(view, row));
}

function factList(facts) {
  return element("dl", {}, facts.filter(([, value]) => value).map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

// The tile painted from its layers, so that each can be switched off.
function largePicture(view, row) {
  const { pictures, state } = view;
  const facts = view.tiles.facts(row);
  if (!pictures.planes || pictures.damaged.has(row)) {
    const small = tileCanvas(view, row, 196);
    small.className = "large-picture";
    return small;
  }
  const { size } = pictures.planes.spec;
  const canvas = element("canvas", { class: "large-picture", width: size, height: size, role: "img",
    "aria-label": `Picture of tile ${facts.id}`, "data-tile": facts.id });
  pictures.sprites?.draw(canvas.getContext("2d"), row, 0, 0, size);
  pictures.layersReady(row).then(() => {
    canvas.getContext("2d").putImageData(pictures.compose(row, state.layers), 0, 0);
    canvas.dataset.layers = state.layers;
  });
  return canvas;
}

function layerSwitches(view, row) {
  if (!view.pictures.planes) return null;
  const { tiles, state } = view;
  const all = (1 << tiles.layers.length) - 1;
  const toggles = tiles.layers.map((layer, i) => {
    const drawn = tiles.hasLayer(row, i);
    const on = (state.layers >> i) & 1;
    return element("button", {
      type: "button", class: `chip layer${drawn ? "" : " empty"}`, "aria-pressed": String(Boolean(on)),
      "data-layer": layer.name, title: drawn ? `Switch ${layer.name} ${on ? "off" : "on"}` : `No ${layer.name} on this tile`,
      onclick: () => view.set({ layers: state.layers ^ (1 << i) }),
    }, swatch(layer.colour), layer.name);
  });
  return element("div", { class: "layers", role: "group", "aria-label": "Layers of the picture" }, toggles,
    button(state.layers === all ? "None" : "All", () => view.set({ layers: state.layers === all ? 0 : all }),
      { class: "chip plain", "aria-label": state.layers === all ? "Switch all layers off" : "Switch all layers on" }));
}

function welcomePanel(view) {
  const { data } = view;
  return element("section", { class: "welcome", "aria-label": "About this page" },
    element("h2", {}, "Where else is it like here?"),
    element("p", {}, "Each dot is a piece of the city, a block or two wide. Pieces that work alike lie close together "
      + "among the dots; the map shows where they are. Point at one to see it, click it to keep it."),
    factList(data.facts.map(({ name, value }) => [name, value])),
    button("Show me a place", () => view.pickRandom(), { class: "button primary" }));
}

// --- what is like it ---------------------------------------------------------------------------------------

function alikePanel(view) {
  const { state, tiles } = view;
  if (state.tile < 0) return hint("Pick a tile on the map or among the dots: the places most like it appear here.");
  const neighbours = view.neighbours();
  const items = neighbours.rows.map((row, rank) => element("li", { "data-tile": tiles.id(row) },
    element("span", { class: "rank" }, String(rank + 1)),
    tileButton(view, row, 56),
    element("div", { class: "match" },
      element("div", { class: "match-head" },
        element("strong", {}, neighbours.similarities[row].toFixed(3)),
        element("span", { title: "angular distance between the two vectors" },
          `distance ${angularDistance(neighbours.similarities[row]).toFixed(3)}`),
        element("span", {}, `${formatKm(tiles.km(state.tile, row))} away`)),
      reasonLine(view, state.tile, row))));
  return element("div", {},
    slider("At least", state.km, [0, Math.max(1, Math.ceil(view.widestKm)), 0.5], (km) => (km ? `${km} km away` : "any distance"),
      (km) => view.set({ km })),
    items.length ? element("ol", { class: "neighbours" }, items) : hint("No tile of this page lies that far away."),
    element("p", { class: "note" }, view.data.search_note));
}

function angularDistance(similarity) {
  return Math.sqrt(Math.max(0, 2 - 2 * similarity));
}

function formatKm(km) {
  return km < 1 ? `${Math.round(km * 1000)} m` : `${km.toFixed(1)} km`;
}

function reasonLine(view, a, b) {
  const { tiles, search } = view;
  if (!search.whole) return sharedLine(tiles, a, b);
  const strongest = search.reasons(tiles, a, b)
    .map((change, layer) => ({ change, layer }))
    .filter(({ change }) => Math.abs(change) >= 0.005)
    .sort((one, other) => Math.abs(other.change) - Math.abs(one.change))
    .slice(0, REASONS_SHOWN);
  if (!strongest.length) return element("div", { class: "reasons" }, "no single layer decides it");
  return element("div", { class: "reasons", title: "Change of the similarity when the layer is left out of both tiles" },
    strongest.map(({ change, layer }) => element("span", { class: "reason" },
      swatch(tiles.layers[layer].colour), `${tiles.layers[layer].name} ${change > 0 ? "+" : "−"}${Math.abs(change).toFixed(2)}`)));
}

// Without the measured reasons: only what both tiles show most of.
function sharedLine(tiles, a, b) {
  const count = tiles.layers.length;
  const shared = tiles.layers
    .map((layer, i) => ({ layer, mass: Math.min(tiles.layerMass[a * count + i], tiles.layerMass[b * count + i]) }))
    .filter(({ mass }) => mass > 0)
    .sort((one, other) => other.mass - one.mass)
    .slice(0, REASONS_SHOWN);
  return element("div", { class: "reasons", title: "Layers that both tiles show; not measured with the network" },
    "both show ", shared.map(({ layer }) => element("span", { class: "reason" }, swatch(layer.colour), layer.name)));
}

function hint(text) {
  return element("p", { class: "hint" }, text);
}

// --- arithmetic and walks ----------------------------------------------------------------------------------

function slotRow(view, slots) {
  return element("div", { class: "slots" }, slots.map(({ slot, sign }) => {
    const row = view.state[slot];
    const name = slot.toUpperCase();
    return [sign && element("span", { class: "sign", "aria-hidden": "true" }, sign),
      element("div", { class: `slot${row < 0 ? " open" : ""}`, "data-slot": slot },
        row < 0
          ? element("button", { type: "button", class: "slot-fill", disabled: view.state.tile < 0, onclick: () => view.put(slot, view.state.tile),
            "aria-label": `Put the picked tile into ${name}` }, view.state.tile < 0 ? "pick a tile" : "use picked")
          : tileButton(view, row, 72),
        element("div", { class: "slot-name" }, element("strong", {}, name),
          row >= 0 && element("button", { type: "button", class: "slot-clear", "aria-label": `Empty ${name}`, onclick: () => view.put(slot, -1) }, "×")))];
  }));
}

function arithmeticPanel(view) {
  const { a, b, c } = view.state;
  const slots = slotRow(view, [{ slot: "a" }, { slot: "b", sign: "+" }, { slot: "c", sign: "−" }]);
  const intro = hint("Like A, with what B has over C. Pick tiles and put them into A, B and C.");
  if (a < 0 || (b < 0 && c < 0)) return element("div", {}, slots, intro);
  const { rows, similarities } = view.arithmetic();
  return element("div", {}, slots,
    element("h3", {}, ["A", b >= 0 && "+ B", c >= 0 && "− C"].filter(Boolean).join(" "), " is most like"),
    element("div", { class: "results", "data-results": "arithmetic" },
      rows.map((row) => tileButton(view, row, 72, similarities[row].toFixed(3)))));
}

function walkPanel(view) {
  const { a, b } = view.state;
  const slots = slotRow(view, [{ slot: "a" }, { slot: "b", sign: "→" }]);
  if (a < 0 || b < 0 || a === b) return element("div", {}, slots, hint("Put two tiles into A and B to see the tiles on the way from one to the other."));
  const path = view.walk();
  return element("div", {}, slots,
    element("ol", { class: "results walk", "data-results": "walk" }, path.map((row, step) =>
      element("li", {}, tileButton(view, row, 72, step === 0 ? "A" : step === path.length - 1 ? "B" : String(step))))),
    element("p", { class: "note" }, "Even steps between the two vectors; at each, the nearest tile not met before."));
}

// --- the selection -----------------------------------------------------------------------------------------

function selectionPanel(view) {
  const rows = [...view.selection];
  if (!rows.length) return hint("Draw a box or a lasso among the dots or on the map, or click an entry of the legend. Shift adds to the selection.");
  return element("div", { class: "selection" },
    element("h3", {}, `${rows.length.toLocaleString("en")} tiles selected`),
    shareBars(view, rows),
    element("div", { class: "row" },
      button("CSV", () => download(csvOf(view.tiles, rows, view.clusterName), "tiles.csv", "text/csv"), { "aria-label": "Save the selection as CSV" }),
      button("GeoJSON", () => download(geojsonOf(view.tiles, rows, view.clusterName), "tiles.geojson", "application/geo+json"),
        { "aria-label": "Save the selection as GeoJSON" }),
      button("Clear", () => view.select([]), { class: "button quiet", "aria-label": "Clear the selection" })),
    element("div", { class: "results" }, spread(rows, 18).map((row) => tileButton(view, row, 56))));
}

function spread(rows, count) {
  if (rows.length <= count) return rows;
  return Array.from({ length: count }, (_, i) => rows[Math.floor((i * rows.length) / count)]);
}

// How often each dominant layer comes in the selection, beside the whole page.
function shareBars(view, rows) {
  const { tiles } = view;
  const tally = (some) => {
    const counts = new Array(tiles.layers.length).fill(0);
    some.forEach((row) => { if (tiles.dominant[row] >= 0) counts[tiles.dominant[row]]++; });
    return counts.map((count) => count / some.length);
  };
  const [here, everywhere] = [tally(rows), tally([...tiles.dominant.keys()])];
  const order = [...here.keys()].filter((layer) => here[layer] > 0).sort((a, b) => here[b] - here[a]).slice(0, 6);
  return element("div", { class: "bars" }, order.map((layer) => {
    const bar = element("span", { class: "bar" });
    bar.style.cssText = `width:${(here[layer] * 100).toFixed(1)}%;background:${tiles.layers[layer].colour}`;
    return element("div", { class: "bar-row" }, element("span", {}, tiles.layers[layer].name), element("span", { class: "bar-track" }, bar),
      element("span", { class: "bar-value" }, `${Math.round(here[layer] * 100)} % (page ${Math.round(everywhere[layer] * 100)} %)`));
  }));
}

function records(tiles, rows, clusterName) {
  return rows.map((row) => {
    const [lat, lon] = tiles.centres[row];
    const { layer, zone, density } = tiles.facts(row);
    return { zoom: tiles.zoom, x: tiles.x(row), y: tiles.y(row), lat: Number(lat.toFixed(6)), lon: Number(lon.toFixed(6)),
      dominant_layer: layer, zone, density: Number(density.toFixed(3)), cluster: clusterName(row) };
  });
}

function csvOf(tiles, rows, clusterName) {
  const table = records(tiles, rows, clusterName);
  const names = Object.keys(table[0]);
  return [names, ...table.map((record) => names.map((name) => record[name]))].map((line) => line.map(csvCell).join(",")).join("\r\n") + "\r\n";
}

// Quoted where needed; a leading = + - @ in text would run as a formula in a spreadsheet.
function csvCell(value) {
  const text = typeof value === "string" ? value.replace(/^[=+\-@\t\r]/, "'$&") : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function geojsonOf(tiles, rows, clusterName) {
  const features = records(tiles, rows, clusterName).map((properties) => {
    const { x, y } = properties;
    const corners = [[x, y], [x, y + 1], [x + 1, y + 1], [x + 1, y], [x, y]];
    const ring = corners.map(([cx, cy]) => latlonOfTile(cx, cy, tiles.zoom).reverse().map((degrees) => Number(degrees.toFixed(7))));
    return { type: "Feature", id: `${tiles.zoom}/${x}/${y}`, properties, geometry: { type: "Polygon", coordinates: [ring] } };
  });
  return JSON.stringify({ type: "FeatureCollection", features });
}

function download(content, name, type) {
  const address = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const link = element("a", { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}
