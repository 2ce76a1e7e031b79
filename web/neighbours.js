// The places most similar to the picked tile, and why each of them is.

import { element, hint, slider, swatch } from "./dom.js";
import { formatKm } from "./geography.js";
import { tileButton } from "./tile_button.js";

/** @import { Explorer } from "./explorer.js" */
/** @import { Tiles } from "./tiles.js" */

const REASONS_SHOWN = 3;
const SMALLEST_REASON = 0.005;
const PICTURE_PX = 56;

/** @param {Explorer} explorer */
export function neighbourPanel(explorer) {
  const { state, tiles } = explorer;
  if (state.tile < 0) return hint("Pick a tile on the map or among the dots. The most similar places appear here.");
  const { rows, similarities } = explorer.neighbours();
  const items = rows.map((row, rank) => element("li", { "data-tile": tiles.id(row) },
    element("span", { class: "rank" }, String(rank + 1)),
    tileButton(explorer, row, PICTURE_PX),
    element("div", { class: "match" },
      element("div", { class: "match-head" },
        element("strong", { title: "Cosine similarity of the two vectors; 1 is the same" },
          similarities[row].toFixed(3)),
        element("span", { title: "Angular distance of the two vectors; 0 is the same" },
          `distance ${Math.sqrt(Math.max(0, 2 - 2 * similarities[row])).toFixed(3)}`),
        element("span", {}, `${formatKm(tiles.km(state.tile, row))} away`)),
      reasonLine(explorer, state.tile, row))));
  const farthest = Math.max(1, Math.ceil(explorer.widestKm));
  return element("div", {},
    slider("At least", state.km, [0, farthest, 0.5], (km) => (km ? `${km} km away` : "any distance"),
      (km) => explorer.set({ km })),
    items.length ? element("ol", { class: "neighbours" }, items) : hint("No tile of this page is that far away."),
    element("p", { class: "note" }, explorer.data.search_note));
}

/**
 * What makes two tiles similar: layers, and how much is the place itself and how much its surroundings.
 * @param {Explorer} explorer
 * @param {number} a
 * @param {number} b
 */
function reasonLine({ tiles, search }, a, b) {
  if (!search.reasonVectors) return sharedLayers(tiles, a, b);
  const strongest = search.reasonVectors.contributions(tiles, a, b)
    .map((change, layer) => ({ change, layer }))
    .filter(({ change }) => Math.abs(change) >= SMALLEST_REASON)
    .sort((one, other) => Math.abs(other.change) - Math.abs(one.change))
    .slice(0, REASONS_SHOWN);
  const layers = strongest.map(({ change, layer }) => element("span", { class: "reason" },
    swatch(tiles.layers[layer].colour), `${tiles.layers[layer].name} ${signed(change)}`));
  const place = search.reasonVectors.placeContributions(a, b)
    .map(({ name, change }) => element("span", { class: "reason" }, `${name} ${signed(change)}`));
  return [
    element("div", { class: "reasons", title: "Similarity that is lost when the layer is left out of one of the tiles" },
      layers.length ? layers : "no single layer explains it"),
    place.length > 0 && element("div", { class: "reasons place", title: "Similarity that is lost when it is left out of one of the places" }, place),
  ];
}

/** @param {number} change */
function signed(change) {
  return `${change > 0 ? "+" : "−"}${Math.abs(change).toFixed(2)}`;
}

/**
 * Without measured reasons: the layers that both tiles show most of.
 * @param {Tiles} tiles
 * @param {number} a
 * @param {number} b
 */
function sharedLayers({ layers, layerMass }, a, b) {
  const shared = layers
    .map((layer, i) => ({ layer, mass: Math.min(layerMass[a * layers.length + i], layerMass[b * layers.length + i]) }))
    .filter(({ mass }) => mass > 0)
    .sort((one, other) => other.mass - one.mass)
    .slice(0, REASONS_SHOWN);
  return element("div", { class: "reasons", title: "Layers that both tiles show; not measured with the network" },
    "both show ", shared.map(({ layer }) => element("span", { class: "reason" }, swatch(layer.colour), layer.name)));
}
