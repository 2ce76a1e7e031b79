// The picked tile: its large picture, what is known about it, and a switch for each layer.

import { factsBelowHeading } from "./colourings.js";
import { button, context2d, element, factList, swatch } from "./dom.js";
import { allLayers } from "./state.js";

/** @import { Explorer } from "./explorer.js" */

const PICTURE_PX = 196;
const SLOTS = /** @type {const} */ ([["a", "A"], ["b", "B"], ["c", "C"]]);

/** @param {Explorer} explorer */
export function inspector(explorer) {
  const row = explorer.state.tile;
  if (row < 0) return welcome(explorer);
  const { tiles, words } = explorer;
  const [lat, lon] = tiles.centres[row];
  return element("section", { class: "tile-panel", "aria-label": "Picked tile" },
    element("div", { class: "tile-head" },
      largePicture(explorer, row),
      element("div", { class: "tile-facts" },
        element("h2", {}, words.heading(row)),
        factList([["tile", tiles.id(row)], ["centre", `${lat.toFixed(5)}, ${lon.toFixed(5)}`],
          ...factsBelowHeading(explorer, row)]),
        element("a", { href: tiles.osmLink(row), target: "_blank", rel: "noopener noreferrer" },
          "Open in OpenStreetMap"),
        element("div", { class: "abc" },
          SLOTS.map(([slot, name]) => button(name, () => explorer.put(slot, row),
            { title: `Use as ${name} in A + B − C and in walks`, "aria-label": `Put into ${name}` })),
          button("Close", () => explorer.pick(-1), { class: "button quiet" })))),
    layerSwitches(explorer, row));
}

/** @param {Explorer} explorer */
function welcome(explorer) {
  return element("section", { class: "welcome", "aria-label": "About this page" },
    element("h2", {}, "Where else is it like here?"),
    element("p", {}, "Each dot is one piece of the city, a block or two wide. Similar places are close together among "
      + "the dots; the map shows where they are. Point at a dot or a tile to see it. Click to keep it and to find similar "
      + "places."),
    factList((explorer.data.facts ?? []).map(({ name, value }) => [name, value])),
    button("Show me a place", () => explorer.pickRandom(), { class: "button primary" }));
}

/**
 * The tile painted from its layers, so that each can be switched off.
 * @param {Explorer} explorer
 * @param {number} row
 */
function largePicture({ pictures, state, tiles }, row) {
  const { planes } = pictures;
  if (!planes || pictures.damaged.has(row)) {
    const small = pictures.canvas(row, PICTURE_PX, state.preview);
    small.className = "large-picture";
    return small;
  }
  const { size } = planes.sheets.spec;
  const canvas = element("canvas", {
    class: "large-picture", width: size, height: size, role: "img", "aria-label": `Picture of tile ${tiles.id(row)}`,
    "data-tile": tiles.id(row),
  });
  const { layers } = state;
  pictures.draw(context2d(canvas), row, 0, 0, size);
  pictures.compose(planes, row, layers).then((picture) => {
    context2d(canvas).putImageData(picture, 0, 0);
    canvas.dataset.layers = String(layers);
  });
  return canvas;
}

/**
 * @param {Explorer} explorer
 * @param {number} row
 */
function layerSwitches(explorer, row) {
  if (!explorer.pictures.planes) return null;
  const { tiles, state } = explorer;
  const all = allLayers(tiles);
  const switches = tiles.layers.map((layer, i) => {
    const drawn = tiles.hasLayer(row, i);
    const on = Boolean((state.layers >> i) & 1);
    return button([swatch(layer.colour), layer.name], () => explorer.set({ layers: state.layers ^ (1 << i) }), {
      class: `chip layer${drawn ? "" : " empty"}`, "aria-pressed": String(on), "data-layer": layer.name,
      title: drawn ? `Switch ${layer.name} ${on ? "off" : "on"}` : `No ${layer.name} on this tile`,
    });
  });
  const isAll = state.layers === all;
  return element("div", { class: "layers", role: "group", "aria-label": "Layers of the picture" }, switches,
    button(isAll ? "None" : "All", () => explorer.set({ layers: isAll ? 0 : all }),
      { class: "chip plain", "aria-label": `${isAll ? "None" : "All"} of the layers` }));
}
