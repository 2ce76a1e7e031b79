// The ways to colour the tiles, as colourings.py defines them: colours, legend, and what each says of one tile.

import { arrayOf } from "./arrays.js";
import { rampColour, readable, rgbOf } from "./colour.js";

/** @import { CategoryColouring, ColouringData, Legend, LegendItem, NumberArray, NumberColouring, PageData, SimilarityColouring } from "./types.d.ts" */
/** @import { Words } from "./words.js" */
/** @typedef {{colours: Uint8Array, legend: Legend}} Coloured 3 bytes a tile, and what they mean */
/** @typedef {{key: string, column: string, text: string, value: string | number}} Fact */

const HEADING = "layer"; // what this one says of a tile is its heading wherever no words describe it
const RAMP_BINS = 24;
const LOWEST_SHARE = 0.02; // of the tiles may be less similar than the ramp's dark end

export class Colourings {
  /** @param {PageData} data */
  constructor(data) {
    this.count = data.count;
    this.blank = rgbOf(data.blank_colour);
    this.ramp = data.ramp.map(rgbOf);
    /** @type {Map<string, ColouringData>} */
    this.byKey = new Map(data.colourings.map((colouring) => [colouring.key, colouring]));
    /** @type {Map<string, NumberArray>} */
    this.values = new Map();
    /** @type {ReadonlyMap<string, string>} names that the reader gave to categories, by "colouring:category" */
    this.names = new Map();
    for (const colouring of data.colourings) {
      if (colouring.kind !== "similarity" && colouring.kind !== "text") this.values.set(colouring.key, arrayOf(colouring.values));
    }
  }

  get keys() { return [...this.byKey.keys()]; }

  /**
   * @param {ColouringData} colouring
   * @param {NumberArray | null} values of each tile
   */
  add(colouring, values) {
    this.byKey.set(colouring.key, colouring);
    if (values) this.values.set(colouring.key, values);
  }

  /** @param {string} key */
  get(key) { return /** @type {ColouringData} */ (this.byKey.get(key)); }

  /** @param {string} key */
  valuesOf(key) { return /** @type {NumberArray} */ (this.values.get(key)); }

  /**
   * @param {CategoryColouring} colouring
   * @param {number} value -1 for none
   */
  nameOf({ key, categories, none }, value) {
    return this.names.get(`${key}:${value}`) ?? (categories[value] ?? none).name;
  }

  /**
   * The tiles in the colours of `key`; `similarities` gives those to the picked tile, null when none is picked.
   * @param {string} key
   * @param {boolean} dark
   * @param {() => Float32Array | null} similarities
   * @returns {Coloured}
   */
  paint(key, dark, similarities) {
    const colouring = this.get(key);
    switch (colouring.kind) {
      case "category": return this.byCategory(colouring, dark);
      case "number": return this.byNumber(colouring);
      case "text": return { colours: new Uint8Array(3 * this.count), legend: { kind: "hint", text: "" } };
      case "similarity": return this.bySimilarity(colouring, similarities());
      case "rgb": return {
        colours: /** @type {Uint8Array} */ (this.valuesOf(key)), legend: { kind: "rgb", channels: colouring.channels },
      };
    }
  }

  /**
   * @param {CategoryColouring} colouring
   * @param {boolean} dark
   * @returns {Coloured}
   */
  byCategory(colouring, dark) {
    const { key, categories, none, ordered, editable } = colouring;
    const palette = [...categories, none].map((category) => readable(rgbOf(category.colour), dark));
    const values = this.valuesOf(key);
    const counts = new Array(palette.length).fill(0);
    const colours = new Uint8Array(3 * this.count);
    values.forEach((value, row) => {
      const category = value < 0 ? categories.length : value;
      counts[category]++;
      colours.set(palette[category], 3 * row);
    });
    /** @type {LegendItem[]} */
    const items = [...categories.keys(), -1].map((category, i) =>
      ({ name: this.nameOf(colouring, category), colour: palette[i], count: counts[i], category }));
    const shown = items.filter((item) => item.count);
    if (!ordered) shown.sort((a, b) => b.count - a.count);
    return { colours, legend: { kind: "category", key, editable, items: shown, values } };
  }

  /**
   * @param {NumberColouring} colouring
   * @returns {Coloured}
   */
  byNumber(colouring) {
    const [low, high] = colouring.range;
    return this.ramped(this.valuesOf(colouring.key), low, high,
      [numberText(colouring, low), numberText(colouring, high)], colouring.caption);
  }

  /**
   * @param {SimilarityColouring} colouring
   * @param {Float32Array | null} similarities
   * @returns {Coloured}
   */
  bySimilarity(colouring, similarities) {
    if (!similarities) {
      const colours = new Uint8Array(3 * this.count);
      for (let row = 0; row < this.count; row++) colours.set(this.blank, 3 * row);
      return { colours, legend: { kind: "hint", text: colouring.hint } };
    }
    const sorted = similarities.slice().sort();
    const low = sorted[Math.floor(sorted.length * LOWEST_SHARE)];
    return this.ramped(similarities, low, 1, [low.toFixed(low > 0.98 ? 4 : 2), "1"], colouring.caption);
  }

  /**
   * Numbers on the ramp; unknown ones (NaN) in the colour of blank tiles.
   * @param {NumberArray} values
   * @param {number} low
   * @param {number} high
   * @param {[string, string]} labels
   * @param {string} caption
   * @returns {Coloured}
   */
  ramped(values, low, high, labels, caption) {
    const colours = new Uint8Array(3 * this.count);
    const bins = new Array(RAMP_BINS).fill(0);
    values.forEach((value, row) => {
      const share = Math.min(1, Math.max(0, (value - low) / (high - low || 1)));
      colours.set(Number.isNaN(share) ? this.blank : rampColour(this.ramp, share), 3 * row);
      if (!Number.isNaN(share)) bins[Math.min(RAMP_BINS - 1, Math.floor(share * RAMP_BINS))]++;
    });
    return { colours, legend: { kind: "ramp", ramp: this.ramp, bins, labels, caption } };
  }

  /**
   * What the colourings by category and by number say of one tile.
   * @param {number} row
   * @returns {Fact[]}
   */
  facts(row) {
    /** @type {Fact[]} */
    const facts = [];
    for (const colouring of this.byKey.values()) {
      const { key, column, kind } = colouring;
      const value = this.values.get(key)?.[row] ?? NaN;
      if (kind === "category") {
        const name = this.nameOf(colouring, value);
        facts.push({ key, column, text: name, value: name });
      } else if (kind === "text" && colouring.values[row]) {
        facts.push({ key, column, text: colouring.values[row], value: colouring.values[row] });
      } else if (kind === "number" && !Number.isNaN(value)) {
        facts.push({ key, column, text: numberText(colouring, value), value: Number(value.toPrecision(7)) });
      }
    }
    return facts;
  }
}

/**
 * Facts about a tile as names and texts, without the one that is the tile's heading.
 * @param {{colourings: Colourings, words: Words}} explorer
 * @param {number} row
 * @returns {[string, string][]}
 */
export function factsBelowHeading({ colourings, words }, row) {
  const isHeading = words.of(row).length ? "" : HEADING;
  return colourings.facts(row).filter(({ key }) => key !== isHeading).map(({ key, text }) => [key, text]);
}

/**
 * @param {NumberColouring} colouring
 * @param {number} value
 */
export function numberText({ scale, digits, unit }, value) {
  return (value * scale).toFixed(digits) + unit;
}
