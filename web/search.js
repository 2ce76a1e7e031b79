// Similarity, reasons, arithmetic and walks, all from the rounded vectors in the page.

import { vectorsOf } from "./arrays.js";

/** @import { PageData } from "./types.d.ts" */
/** @import { Tiles } from "./tiles.js" */

const SAME_DIRECTION = 1e-3; // radians; below this a walk goes straight

export class Search {
  /** @param {PageData} data */
  constructor(data) {
    this.count = data.count;
    this.dimensions = data.dimensions;
    this.vectors = vectorsOf(data.vectors, this.dimensions);
    this.reasonVectors = data.reasons ? new ReasonVectors(data.reasons) : null;
  }

  /** @param {number} row */
  vector(row) {
    const start = row * this.dimensions;
    return this.vectors.slice(start, start + this.dimensions);
  }

  /**
   * Cosine similarity of `query` (of length 1) with every tile.
   * @param {Float32Array} query
   */
  similarities(query) {
    const { dimensions, vectors } = this;
    const result = new Float32Array(this.count);
    for (let row = 0, at = 0; row < this.count; row++) {
      let sum = 0;
      for (let i = 0; i < dimensions; i++, at++) sum += query[i] * vectors[at];
      result[row] = sum;
    }
    return result;
  }

  /**
   * The direction of the sum of some tiles' vectors, each with its sign.
   * @param {[number, number][]} signedRows pairs of row and sign; a row of -1 is left out
   */
  combine(signedRows) {
    const sum = new Float32Array(this.dimensions);
    for (const [row, sign] of signedRows) {
      if (row >= 0) this.vector(row).forEach((part, i) => { sum[i] += sign * part; });
    }
    return unit(sum);
  }

  /**
   * Rows on the way from a to b: at even steps of the great circle between them, the nearest tile not yet used.
   * @param {number} a
   * @param {number} b
   * @param {number} between number of tiles between the two
   */
  walk(a, b, between) {
    const [from, to] = [this.vector(a), this.vector(b)];
    const cosine = Math.min(1, Math.max(-1, from.reduce((sum, part, i) => sum + part * to[i], 0)));
    const angle = Math.acos(cosine);
    const used = new Set([a, b]);
    /** @type {number[]} */
    const rows = [];
    for (let step = 1; step <= between; step++) {
      const share = step / (between + 1);
      const [weightA, weightB] = angle < SAME_DIRECTION ? [1 - share, share]
        : [Math.sin((1 - share) * angle), Math.sin(share * angle)];
      const point = unit(from.map((part, i) => weightA * part + weightB * to[i]));
      const [row] = best(this.similarities(point), 1, (candidate) => !used.has(candidate));
      if (row === undefined) break;
      used.add(row);
      rows.push(row);
    }
    return [a, ...rows, b];
  }
}

/** Vectors of the tiles with and without each of their parts, shortened by Python to the directions that matter. */
class ReasonVectors {
  /** @param {NonNullable<PageData["reasons"]>} data */
  constructor(data) {
    this.dimensions = data.dimensions;
    this.whole = vectorsOf(data.whole, data.dimensions);
    this.without = vectorsOf(data.without, data.dimensions);
    this.parts = data.parts;
    const tiles = this.whole.length / data.dimensions;
    this.firstPart = this.without.length / data.dimensions - tiles * data.parts.length;
  }

  /**
   * How much of the similarity of two tiles is lost when a layer is left out of one of them, for each layer.
   * @param {Tiles} tiles
   * @param {number} a
   * @param {number} b
   */
  contributions(tiles, a, b) {
    return tiles.layers.map((_, layer) => this.lost(a, tiles.part(a, layer), b, tiles.part(b, layer)));
  }

  /**
   * The same for the place itself and for its surroundings, if the network sees these.
   * @param {number} a
   * @param {number} b
   */
  placeContributions(a, b) {
    return this.parts.map((name, part) => {
      const [partA, partB] = [a, b].map((row) => this.firstPart + row * this.parts.length + part);
      return { name, change: this.lost(a, partA, b, partB) };
    });
  }

  /**
   * The mean of leaving the part out of a and of leaving it out of b.
   * @param {number} a
   * @param {number} partA its number in a, -1 if a lacks it
   * @param {number} b
   * @param {number} partB
   */
  lost(a, partA, b, partB) {
    return this.cosine(a, -1, b, -1) - (this.cosine(a, partA, b, -1) + this.cosine(a, -1, b, partB)) / 2;
  }

  /**
   * @param {number} a
   * @param {number} partA the part left out of a, -1 for none
   * @param {number} b
   * @param {number} partB
   */
  cosine(a, partA, b, partB) {
    const size = this.dimensions;
    const [first, atA] = partA < 0 ? [this.whole, a * size] : [this.without, partA * size];
    const [second, atB] = partB < 0 ? [this.whole, b * size] : [this.without, partB * size];
    let sum = 0;
    for (let i = 0; i < size; i++) sum += first[atA + i] * second[atB + i];
    return sum;
  }
}

/**
 * The `count` most similar rows that `allowed` lets through, best first.
 * @param {Float32Array} similarities
 * @param {number} count
 * @param {(row: number) => boolean} allowed
 */
export function best(similarities, count, allowed) {
  /** @type {number[]} */
  const rows = [];
  let worst = -Infinity;
  for (let row = 0; row < similarities.length; row++) {
    const value = similarities[row];
    if ((rows.length === count && value <= worst) || !allowed(row)) continue;
    let at = rows.length;
    while (at > 0 && similarities[rows[at - 1]] < value) at--;
    rows.splice(at, 0, row);
    if (rows.length > count) rows.pop();
    worst = similarities[rows[rows.length - 1]];
  }
  return rows;
}

/** @param {Float32Array} vector */
function unit(vector) {
  const length = Math.hypot(...vector) || 1;
  return vector.map((part) => part / length);
}
