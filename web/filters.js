// Filters: which tiles pass them, and how the tiles that pass are spread over the values of each colouring.

import { plain } from "./fold.js";

/** @import { Colourings } from "./colourings.js" */
/** @import { CategoryColouring, ColouringData, Filter, NumberColouring, TextColouring } from "./types.d.ts" */
/** @typedef {CategoryColouring | NumberColouring | TextColouring} Filtered */
/** @typedef {ReadonlyMap<string, Filter>} Filters */

const HISTOGRAM_BINS = 28;

/**
 * The colourings that can be filtered by, the user's own first.
 * @param {Colourings} colourings
 */
export function filterable(colourings) {
  return /** @type {Filtered[]} */ ([...colourings.byKey.values()].reverse().filter(({ kind }) =>
    kind === "category" || kind === "number" || kind === "text"));
}

/**
 * For each tile 1 if it passes all filters (without the one of `except`), null if there are none.
 * @param {Colourings} colourings
 * @param {Filters} filters
 * @param {string} [except]
 */
export function passing(colourings, filters, except) {
  const used = [...filters].filter(([key]) => key !== except && colourings.byKey.has(key));
  if (!used.length) return null;
  const passes = new Uint8Array(colourings.count).fill(1);
  for (const [key, filter] of used) {
    const test = testOf(colourings, colourings.get(key), filter);
    for (let row = 0; row < passes.length; row++) if (passes[row] && !test(row)) passes[row] = 0;
  }
  return passes;
}

/**
 * @param {Colourings} colourings
 * @param {ColouringData} colouring
 * @param {Filter} filter
 * @returns {(row: number) => boolean}
 */
function testOf(colourings, colouring, filter) {
  if (colouring.kind === "text") {
    const wanted = filter.kind === "contains" ? plain(filter.text) : "";
    return (row) => plain(colouring.values[row]).includes(wanted);
  }
  const values = colourings.valuesOf(colouring.key);
  if (filter.kind === "range") return (row) => values[row] >= filter.low && values[row] <= filter.high;
  if (filter.kind === "keep") return (row) => filter.categories.has(Math.max(-1, values[row]));
  return () => true;
}

/**
 * Lowest and highest value, null when no tile has one.
 * @param {Colourings} colourings
 * @param {NumberColouring} colouring
 * @returns {[number, number] | null}
 */
export function extentOf(colourings, { key }) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of colourings.valuesOf(key)) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? [low, high] : null;
}

/**
 * How many tiles have a value in each bin from low to high: of all tiles, and of those that pass.
 * @param {Colourings} colourings
 * @param {NumberColouring} colouring
 * @param {[number, number]} extent
 * @param {Uint8Array | null} passes
 */
export function histogram(colourings, { key }, [low, high], passes) {
  const [all, kept] = [new Array(HISTOGRAM_BINS).fill(0), new Array(HISTOGRAM_BINS).fill(0)];
  colourings.valuesOf(key).forEach((value, row) => {
    if (Number.isNaN(value)) return;
    const bin = Math.min(HISTOGRAM_BINS - 1, Math.floor(((value - low) / (high - low || 1)) * HISTOGRAM_BINS));
    all[bin]++;
    if (!passes || passes[row]) kept[bin]++;
  });
  return { all, kept };
}

/**
 * How many tiles each category has, by its number; -1 is none.
 * @param {Colourings} colourings
 * @param {CategoryColouring} colouring
 * @param {Uint8Array | null} passes
 */
export function categoryCounts(colourings, { key }, passes) {
  /** @type {Map<number, {all: number, kept: number}>} */
  const counts = new Map();
  colourings.valuesOf(key).forEach((value, row) => {
    const category = Math.max(-1, value);
    const count = counts.get(category) ?? { all: 0, kept: 0 };
    count.all++;
    if (!passes || passes[row]) count.kept++;
    counts.set(category, count);
  });
  return [...counts].sort(([, a], [, b]) => b.all - a.all);
}
