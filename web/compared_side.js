// One side of a comparison: an explorer whose picks, selections and settings reach the other side too.

import { context2d, element, fitCanvas } from "./dom.js";
import { Explorer, numberedRings } from "./explorer.js";
import { SPARE_PX } from "./graphics.js";

/** @import { Comparison } from "./comparison.js" */
/** @import { EmbeddingView } from "./embedding_view.js" */
/** @import { TileView } from "./tile_view.js" */
/** @import { Marks, Options, PageData, Point, Ring, SelectionMode, State } from "./types.d.ts" */

const BEHIND_PX = 2.5; // radius of the other city's dots

export class ComparedSide extends Explorer {
  /**
   * @param {HTMLElement} root
   * @param {PageData} data
   * @param {Options} options
   * @param {Comparison} comparison
   */
  constructor(root, data, options, comparison) {
    super(root, data, options);
    this.comparison = comparison;
    this.behind = element("canvas", { class: "behind", "aria-hidden": "true" });
    if (comparison.isCities) this.panes.embedding.prepend(this.behind);
  }

  /**
   * Below the dots of a city those of the other one, in grey: a position means the same on both sides.
   * @param {EmbeddingView} view
   */
  located(view) {
    if (!this.comparison?.isCities) return;
    fitCanvas(this.behind, view.width, view.height, SPARE_PX);
    const context = context2d(this.behind);
    const { positions } = view.project(this.comparison.otherThan(this).embedding.coordinatesOf(view.algorithm, view.dimensions));
    context.fillStyle = this.ink.greyDot;
    for (let at = 0; at < positions.length; at += 2) {
      context.beginPath();
      context.arc(positions[at], positions[at + 1], BEHIND_PX, 0, 2 * Math.PI);
      context.fill();
    }
  }

  caption() {
    const { comparison } = this;
    return super.caption() + (comparison?.isCities ? ` · grey: ${comparison.nameOf(comparison.otherThan(this))}` : "");
  }

  /** @param {Partial<State>} change */
  set(change) {
    super.set(change);
    this.comparison.share(this, change);
  }

  /**
   * Change the state of this side alone.
   * @param {Partial<State>} change
   */
  adopt(change) { super.set(change); }

  /** @param {number} row */
  pick(row) {
    if (row < 0 && this.state.tile < 0) return;
    this.comparison.pick(this, row);
    if (row >= 0) this.say(`Picked ${this.describe(row)}`);
  }

  /**
   * @param {number[]} rows
   * @param {SelectionMode} [mode]
   */
  select(rows, mode) {
    super.select(rows, mode);
    this.comparison.selected(this);
  }

  /**
   * @param {number} row
   * @param {TileView | null} view
   * @param {Point | null} point
   */
  hover(row, view, point) {
    const before = this.hovered;
    super.hover(row, view, point);
    if (row !== before) this.comparison.otherThan(this).drawMarks();
  }

  /**
   * Both sides hear the keys of the page; the active one answers.
   * @param {KeyboardEvent} event
   */
  onKey(event) {
    if (this.comparison.active === this) super.onKey(event);
  }

  /**
   * Both sides hear of a file that is dropped; the active one answers.
   * @param {File[]} files
   */
  async addFiles(files) {
    if (this.comparison.active === this) await this.comparison.addFiles(files);
  }

  /** @param {number} row */
  isGrey(row) {
    const { comparison } = this; // there is none yet in the constructor
    if (super.isGrey(row)) return true;
    return Boolean(comparison && !comparison.isCities && comparison.otherThan(this).passes?.[row] === 0);
  }

  /** In the other city, similarities are those to the tile that is picked here. */
  similaritiesToPicked() {
    const { comparison } = this;
    if (!comparison?.isCities || comparison.active === this) return super.similaritiesToPicked();
    return comparison.active.state.tile < 0 ? null : comparison.found().similarities;
  }

  /** @returns {Ring[]} */
  similarRings() {
    const { comparison, ink } = this;
    if (!comparison.isCities) {
      if (this.state.tile < 0) return [];
      const shared = comparison.sharedNeighbours();
      return numberedRings(this.neighbours().rows, ink.accent)
        .map((ring) => (shared.has(ring.row) ? { ...ring, width: 3 } : { ...ring, colour: ink.slot }));
    }
    const isHere = comparison.active === this;
    if (comparison.active.state.tile < 0 || isHere !== (comparison.where === "here")) return [];
    return numberedRings(isHere ? this.neighbours().rows : comparison.found().rows, ink.accent);
  }

  /** @returns {Marks} */
  marks() {
    if (!this.comparison) return { rings: [], path: [] };
    const { rings, path } = super.marks();
    const row = this.comparison.counterpart(this);
    return { rings: row < 0 ? rings : [...rings, { row, radius: 8, colour: this.ink.text, width: 1.5 }], path };
  }
}
