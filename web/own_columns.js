// Columns of a file that was dropped on the page, joined with the tiles by position as own_columns.py does it.

import { tileOfLatlon } from "./geography.js";
import { boundsOf, isInside } from "./polygon.js";

/** @import { Geometry, Table } from "./table_file.js" */
/** @import { Tiles } from "./tiles.js" */
/** @import { CategoryColouring, NumberColouring, OwnRules, Point, TextColouring } from "./types.d.ts" */
/** @typedef {{colouring: CategoryColouring | NumberColouring | TextColouring, values: Float32Array | null}} Column */

const UNPACKED = { dtype: "float32", shape: [], data: "" };

/**
 * @param {Table} table
 * @param {Tiles} tiles
 * @param {OwnRules} rules
 * @param {(name: string) => string} keyOf a key that no colouring has yet
 * @returns {{columns: Column[], placed: number}} and how many rows lie on a tile
 */
export function joinTable(table, tiles, rules, keyOf) {
  const lower = table.names.map((name) => name.toLowerCase());
  const pairs = rules.keys.filter((pair) => pair.every((name) => lower.includes(name)));
  const keys = new Set(pairs.flat()); // say where a row lies, whichever pair counts
  const owners = placedRows(table, lower, tiles, pairs);
  const columns = table.names.flatMap((name, column) => {
    if (keys.has(lower[column]) || rules.not_columns.includes(lower[column])) return [];
    const found = columnOf(keyOf(name), table.rows.map((row) => row[column]), owners, tiles.count, rules);
    return found ? [found] : [];
  });
  if (!columns.length) throw new Error("there is no column of numbers or text besides the position");
  return { columns, placed: owners.filter((rows) => rows.length).length };
}

/**
 * The tiles of each row, by the first pair of key columns, or else by the shapes, that put a row on a tile of the page.
 * @param {Table} table
 * @param {string[]} lower its names in small letters
 * @param {Tiles} tiles
 * @param {OwnRules["keys"]} pairs of key columns that the table has
 */
function placedRows({ names, rows, shapes }, lower, tiles, pairs) {
  if (!pairs.length && !shapes) {
    throw new Error(`found the columns ${names.join(", ")}; expected lat and lon, or x and y, among them`);
  }
  for (const pair of pairs) {
    const at = pair.map((name) => lower.indexOf(name));
    const owners = rows.map((row) => keyedTile(row, at, pair[0].endsWith("x"), tiles));
    if (owners.some((some) => some.length)) return owners;
  }
  const owners = (shapes ?? []).map((shape) => tilesOf(shape, tiles));
  if (owners.some((some) => some.length)) return owners;
  throw new Error(`none of ${rows.length} rows lies on a tile of this page`);
}

/**
 * @param {(string | number | boolean | null)[]} row
 * @param {number[]} at
 * @param {boolean} isTile whether the two numbers are those of a tile
 * @param {Tiles} tiles
 */
function keyedTile(row, at, isTile, tiles) {
  const [a, b] = at.map((i) => (row[i] === null ? NaN : Number(row[i])));
  if (!Number.isFinite(a) || !Number.isFinite(b)) return [];
  const [x, y] = isTile ? [a, b] : tileOfLatlon(a, b, tiles.zoom).map(Math.floor);
  const found = tiles.rowAt(x, y);
  return found < 0 ? [] : [found];
}

/**
 * The tiles of a shape: those whose middle a polygon covers; of anything smaller the one it lies in.
 * @param {Geometry | null} shape
 * @param {Tiles} tiles
 * @returns {number[]}
 */
function tilesOf(shape, tiles) {
  if (!shape) return [];
  /** @type {Point[][][]} */
  const polygons = shape.type === "Polygon" ? [shape.coordinates] : shape.type === "MultiPolygon" ? shape.coordinates : [];
  /** @type {Set<number>} */
  const found = new Set();
  for (const rings of polygons) {
    for (const row of rowsWithin(boundsOf(rings.flat()), tiles)) {
      const [lat, lon] = tiles.centres[row];
      if (rings.filter((ring) => isInside(ring, lon, lat)).length % 2) found.add(row);
    }
  }
  if (found.size) return [...found];
  const points = pointsOf(shape);
  if (!points.length) return [];
  const [lon, lat] = [0, 1].map((d) => points.reduce((sum, point) => sum + point[d], 0) / points.length);
  const [x, y] = tileOfLatlon(lat, lon, tiles.zoom).map(Math.floor);
  const row = tiles.rowAt(x, y);
  return row < 0 ? [] : [row];
}

/**
 * Rows of the tiles whose middle may lie in a box: of a small box the tiles under it, of a large one those that it holds.
 * @param {number[]} box west, south, east and north
 * @param {Tiles} tiles
 */
function rowsWithin([west, south, east, north], tiles) {
  const [left, top] = tileOfLatlon(north, west, tiles.zoom).map(Math.floor);
  const [right, bottom] = tileOfLatlon(south, east, tiles.zoom).map(Math.floor);
  if (!((right - left + 1) * (bottom - top + 1) < tiles.count)) {
    return [...tiles.centres.keys()].filter((row) => {
      const [lat, lon] = tiles.centres[row];
      return lon >= west && lon <= east && lat >= south && lat <= north;
    });
  }
  const rows = [];
  for (let x = left; x <= right; x++) {
    for (let y = top; y <= bottom; y++) {
      const row = tiles.rowAt(x, y);
      if (row >= 0) rows.push(row);
    }
  }
  return rows;
}

/**
 * @param {Geometry} shape
 * @returns {Point[]}
 */
function pointsOf(shape) {
  if (shape.geometries) return shape.geometries.flatMap(pointsOf);
  /** @param {any} nested @returns {Point[]} */
  const flat = (nested) => (typeof nested?.[0] === "number" ? [nested] : (nested ?? []).flatMap(flat));
  return flat(shape.coordinates);
}

/**
 * @param {string} key
 * @param {(string | number | boolean | null)[]} cells
 * @param {number[][]} owners tiles of each cell
 * @param {number} count of tiles
 * @param {OwnRules} rules
 * @returns {Column | null}
 */
function columnOf(key, cells, owners, count, rules) {
  const known = cells.filter((cell) => cell !== null);
  const base = { key, label: key, column: key };
  if (known.length && known.every((cell) => typeof cell === "number")) return numberColumn(base, cells, owners, count, rules);
  /** @type {Map<string, number>[]} */
  const byTile = Array.from({ length: count }, () => new Map());
  /** @type {Map<string, number>} */
  const total = new Map();
  cells.forEach((cell, i) => {
    const text = String(cell ?? "").trim().slice(0, rules.longest_text);
    if (!text) return;
    for (const row of owners[i]) {
      byTile[row].set(text, (byTile[row].get(text) ?? 0) + 1);
      total.set(text, (total.get(text) ?? 0) + 1);
    }
  });
  if (!total.size) return null;
  if (total.size > rules.most_categories) {
    const values = byTile.map((own) => byFrequency(own).slice(0, rules.most_texts).join("; "));
    return { colouring: { ...base, kind: "text", values }, values: null };
  }
  const names = byFrequency(total);
  const categories = names.map((name, i) => ({ name, colour: rules.palette[i % rules.palette.length] }));
  const values = Float32Array.from(byTile, (own) => (own.size ? names.indexOf(byFrequency(own)[0]) : -1));
  return { values, colouring: {
    ...base, kind: "category", values: UNPACKED, categories, none: rules.none, ordered: false, editable: false,
  } };
}

/** @param {Map<string, number>} counts */
function byFrequency(counts) {
  return [...counts].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1)).map(([text]) => text);
}

/**
 * @param {{key: string, label: string, column: string}} base
 * @param {(string | number | boolean | null)[]} cells
 * @param {number[][]} owners
 * @param {number} count
 * @param {OwnRules} rules
 * @returns {Column | null}
 */
function numberColumn(base, cells, owners, count, rules) {
  const [sum, number] = [new Float64Array(count), new Uint32Array(count)];
  cells.forEach((cell, i) => {
    if (typeof cell !== "number" || !Number.isFinite(cell)) return;
    for (const row of owners[i]) {
      sum[row] += cell;
      number[row]++;
    }
  });
  const values = Float32Array.from(sum, (total, row) => (number[row] ? total / number[row] : NaN));
  const sorted = values.filter((value) => !Number.isNaN(value)).sort();
  if (!sorted.length) return null;
  /** @param {number} percent */
  const percentile = (percent) => {
    const at = (percent / 100) * (sorted.length - 1);
    const low = Math.floor(at);
    return sorted[low] + (sorted[Math.min(sorted.length - 1, low + 1)] - sorted[low]) * (at - low);
  };
  const [low, high] = rules.percentiles;
  const whole = cells.every((cell) => cell === null || Number.isInteger(cell));
  const caption = number.some((some) => some > 1) ? "mean of the rows on a tile" : "";
  return { values, colouring: {
    ...base, kind: "number", values: UNPACKED, range: [percentile(low), percentile(high)], caption, scale: 1,
    digits: whole ? 0 : digitsOf(Math.max(...[low, high].map((percent) => Math.abs(percentile(percent))))), unit: "",
  } };
}

/**
 * Digits after the point that show three figures of `largest`; at least two.
 * @param {number} largest
 */
function digitsOf(largest) {
  return largest > 0 ? Math.min(12, Math.max(2, 2 - Math.floor(Math.log10(largest)))) : 2;
}
