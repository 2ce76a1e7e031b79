// What stands out on a tile, in words that Python chose (place_words.py), and what two tiles share of it.

import { arrayOf } from "./arrays.js";

/** @import { PageData } from "./types.d.ts" */
/** @import { Tiles } from "./tiles.js" */

const HEADING_WORDS = 2;
const OTHER_SHOWN = 1; // on each side

export class Words {
  /**
   * @param {PageData} data
   * @param {Tiles} tiles
   */
  constructor(data, tiles) {
    this.tiles = tiles;
    this.texts = data.words?.texts ?? [];
    this.ofTile = data.words ? arrayOf(data.words.of_tile) : null;
    this.sameShown = data.words?.same_shown ?? 0;
    this.perTile = data.words?.of_tile.shape[1] ?? 0;
  }

  /**
   * The words of a tile, the most telling first; none where Python sent none.
   * @param {number} row
   * @returns {string[]}
   */
  of(row) {
    return this.indices(row).map((word) => this.texts[word]);
  }

  /**
   * The same as places in `texts`.
   * @param {number} row
   * @returns {number[]}
   */
  indices(row) {
    const words = this.ofTile?.subarray(row * this.perTile, (row + 1) * this.perTile) ?? [];
    return Array.from(words).filter((word) => word < this.texts.length);
  }

  /**
   * A tile in a few words; without any, the layer that stands out most.
   * @param {number} row
   */
  heading(row) {
    return this.of(row).slice(0, HEADING_WORDS).join(", ") || this.tiles.mainLayer(row);
  }

  /**
   * What two tiles have in common, and what only one of them has.
   * @param {number} from
   * @param {number} to
   * @param {Words} [there] the words of the second tile, if it is one of another city
   */
  compare(from, to, there = this) {
    const [first, second] = [this.of(from), there.of(to)];
    return {
      same: first.filter((word) => second.includes(word)).slice(0, this.sameShown),
      missing: first.filter((word) => !second.includes(word)).slice(0, OTHER_SHOWN),
      added: second.filter((word) => !first.includes(word)).slice(0, OTHER_SHOWN),
    };
  }
}
