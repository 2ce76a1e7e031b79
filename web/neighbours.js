// The places most similar to the picked tile, and why each of them is.

import { element, hint, slider } from "./dom.js";
import { formatKm } from "./geography.js";
import { reasonLines } from "./reasons.js";
import { tileButton } from "./tile_button.js";

/** @import { Explorer } from "./explorer.js" */

const PICTURE_PX = 56;

/** @param {Explorer} explorer */
export function neighbourPanel(explorer) {
  const { state, tiles } = explorer;
  if (state.tile < 0) return hint("Pick a tile on the map or among the dots. The most similar places appear here.");
  const { rows, similarities } = explorer.neighbours();
  const items = rows.map((row, rank) => similarPlace(explorer, row, rank, similarities[row],
    { note: `${formatKm(tiles.km(state.tile, row))} away` }));
  const farthest = Math.max(1, Math.ceil(explorer.widestKm));
  return element("div", {},
    slider("At least", state.km, [0, farthest, 0.5], (km) => (km ? `${km} km away` : "any distance"),
      (km) => explorer.set({ km })),
    items.length ? element("ol", { class: "neighbours" }, items) : hint("No tile of this page is that far away."),
    element("p", { class: "note" }, explorer.data.search_note));
}

/**
 * An entry of a list of similar places: picture, similarity, distance, and why it is similar to the picked tile.
 * @param {Explorer} explorer where the picked tile is
 * @param {number} row
 * @param {number} rank
 * @param {number} similarity
 * @param {{there?: Explorer, note?: string, pick?: () => void}} [more] the city of `row`, if it is another one; what
 *   else to say; what a click on the picture does
 */
export function similarPlace(explorer, row, rank, similarity, { there = explorer, note, pick } = {}) {
  return element("li", { "data-tile": there.tiles.id(row) },
    element("span", { class: "rank" }, String(rank + 1)),
    tileButton(there, row, PICTURE_PX, undefined, pick),
    element("div", { class: "match" },
      element("div", { class: "match-head" },
        element("strong", { title: "Cosine similarity of the two vectors; 1 is the same" }, similarity.toFixed(3)),
        element("span", { title: "Angular distance of the two vectors; 0 is the same" },
          `distance ${Math.sqrt(Math.max(0, 2 - 2 * similarity)).toFixed(3)}`),
        note && element("span", {}, note)),
      reasonLines(explorer, explorer.state.tile, row, there)));
}
