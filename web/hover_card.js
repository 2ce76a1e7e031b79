// The card beside the pointer: a picture of the tile pointed at, and what is known about it.

import { factsBelowHeading } from "./colourings.js";
import { element } from "./dom.js";

/** @import { Explorer } from "./explorer.js" */
/** @import { TileView } from "./tile_view.js" */
/** @import { Point } from "./types.d.ts" */

const PICTURE_PX = 104;
const GAP_PX = 16; // from the pointer

export class HoverCard {
  /** @param {Explorer} explorer */
  constructor(explorer) {
    this.explorer = explorer;
    this.node = element("div", { class: "card-tip", hidden: true, "aria-hidden": "true" });
  }

  hide() {
    this.node.hidden = true;
  }

  /**
   * @param {number} row
   * @param {TileView} view
   * @param {Point} point in the view
   */
  show(row, view, [x, y]) {
    const { node, explorer } = this;
    node.hidden = row < 0;
    if (row < 0) return;
    if (node.dataset.tile !== explorer.tiles.id(row)) this.fill(row);
    const [box, frame] = [view.host.getBoundingClientRect(), explorer.root.getBoundingClientRect()];
    const [width, height] = [node.offsetWidth, node.offsetHeight];
    const left = box.left - frame.left + x + GAP_PX;
    const top = box.top - frame.top + y + GAP_PX;
    node.style.left = `${left + width > frame.width ? Math.max(4, left - width - 2 * GAP_PX) : left}px`;
    node.style.top = `${top + height > frame.height ? Math.max(4, top - height - 2 * GAP_PX) : top}px`;
  }

  /** @param {number} row */
  fill(row) {
    const { tiles, words, pictures, state } = this.explorer;
    const lines = [tiles.id(row), ...factsBelowHeading(this.explorer, row).map((fact) => fact.join(" "))];
    const similarities = state.tile === row ? null : this.explorer.similaritiesToPicked();
    if (similarities && !Number.isNaN(similarities[row])) lines.push(`similarity ${similarities[row].toFixed(3)}`);
    this.node.dataset.tile = tiles.id(row);
    this.node.replaceChildren(pictures.canvas(row, PICTURE_PX, state.preview),
      element("div", {}, element("strong", {}, words.heading(row)), lines.map((line) => element("span", {}, line))));
  }
}
