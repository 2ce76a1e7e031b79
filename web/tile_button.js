// A small picture of a tile that picks the tile when clicked.

import { element } from "./dom.js";

/** @import { Explorer } from "./explorer.js" */

/**
 * @param {Explorer} explorer
 * @param {number} row
 * @param {number} side in pixels
 * @param {string} [label]
 * @param {() => void} [pick]
 */
export function tileButton(explorer, row, side, label, pick = () => explorer.pick(row)) {
  const { tiles, words } = explorer;
  const [id, heading] = [tiles.id(row), words.heading(row)];
  const show = () => explorer.hover(row, null, null);
  const hide = () => explorer.hover(-1, null, null);
  return element("button", {
    class: "tile-button", type: "button", "data-tile": id, title: `${id} · ${heading}`,
    "aria-label": `Tile ${id}, ${heading}${label ? `, ${label}` : ""}`,
    onclick: pick, onpointerenter: show, onpointerleave: hide, onfocus: show, onblur: hide,
  }, explorer.pictures.canvas(row, side, explorer.state.preview),
  label && element("span", { class: "tile-label" }, label));
}
