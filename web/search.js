// Similarity, reasons, arithmetic and walks, all from the rounded vectors in the page.

import { arrayOf, vectorsOf } from "./arrays.js";

/** @import { PageData } from "./types.d.ts" */
/** @import { Tiles } from "./tiles.js" */

const SAME_DIRECTION = 1e-3; // radians; below this a walk goes straight

export class Search {
  /** @param {PageData} data */
  constructor(data) {
    this.count = data.count;
    this.dimensions = data.dimensions;
    this.vectors = data.vectors ? vectorsOf(data.vectors, this.dimensions) : new Float32Array(0);
    this.reasonVectors = data.reasons ? new ReasonVectors(data.reasons, this) : null;
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

/** How vectors change when a part of their tile is left out, shortened by Python to the directions that matter. */
class ReasonVectors {
  /**
   * @param {NonNullable<PageData["reasons"]>} data
   * @param {Search} search
   */
  constructor(data, search) {
    this.search = search;
    this.size = data.dimensions;
    this.axes = arrayOf(data.axes);
    this.changes = vectorsOf(data.lost, this.size);
    this.parts = data.parts;
    this.firstPart = this.changes.length / this.size - search.count * data.parts.length;
  }

  /**
   * How much of the similarity of two tiles is lost when a layer is left out of one of them, for each layer.
   * @param {Tiles} tiles
   * @param {number} a
   * @param {number} b
   * @param {ReasonVectors} [there] those of b, if it is a tile of another city
   * @param {Tiles} [tilesThere]
   */
  contributions(tiles, a, b, there = this, tilesThere = tiles) {
    const lost = this.losses(a, b, there);
    return tiles.layers.map((_, layer) => lost(tiles.part(a, layer), tilesThere.part(b, layer)));
  }

  /**
   * The same for the place itself and for its surroundings, if the network sees these.
   * @param {number} a
   * @param {number} b
   * @param {ReasonVectors} [there] those of b, if it is a tile of another city
   */
  placeContributions(a, b, there = this) {
    const lost = this.losses(a, b, there);
    return this.parts.map((name, part) => ({ name, change: lost(this.placePart(a, part), there.placePart(b, part)) }));
  }

  /**
   * @param {number} row
   * @param {number} part
   */
  placePart(row, part) { return this.firstPart + row * this.parts.length + part; }

  /**
   * A vector in the directions of the changes.
   * @param {Float32Array} vector
   */
  shortened(vector) {
    const result = new Float32Array(this.size);
    vector.forEach((part, d) => {
      for (let i = 0; i < this.size; i++) result[i] += part * this.axes[d * this.size + i];
    });
    return result;
  }

  /**
   * A function of a part's number in a and in b, -1 where it is lacking: the mean of leaving the part out of a and of
   * leaving it out of b.
   * @param {number} a
   * @param {number} b
   * @param {ReasonVectors} there
   */
  losses(a, b, there) {
    const [vectorA, vectorB] = [there.shortened(this.search.vector(a)), this.shortened(there.search.vector(b))];
    /** @param {number} partA @param {number} partB */
    return (partA, partB) => (this.along(partA, vectorB) + there.along(partB, vectorA)) / 2;
  }

  /**
   * @param {number} part
   * @param {Float32Array} vector
   */
  along(part, vector) {
    if (part < 0) return 0;
    return vector.reduce((sum, value, i) => sum + value * this.changes[part * this.size + i], 0);
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
