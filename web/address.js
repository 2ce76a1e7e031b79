// The state in the page's address (after #), so that a link opens the same view.

import { bytesOf } from "./arrays.js";
import { LONGEST_NAME, allLayers } from "./state.js";

/** @import { Filter, PageData, Slot, State } from "./types.d.ts" */
/** @import { Tiles } from "./tiles.js" */

/** @type {Slot[]} */
const SLOTS = ["tile", "a", "b", "c"];
const MOST_BITS = 64; // of a rectangle for each selected tile in it
const FARTHEST_KM = 20_040; // half way around the Earth
/** What each of these may be; the first is the usual one and is left out of the address. */
const CHOICES = {
  tab: ["alike", "sum", "walk", "selection", "filter"],
  theme: ["system", "light", "dark"],
  dots: ["dots", "pictures"],
  preview: ["composite", "layer"],
  map: ["coloured", "plain"],
  labels: ["names", "none"],
};

/**
 * `state` changed by an address. An address may hold anything: only what makes sense here is taken from it.
 * @param {string} hash without the #
 * @param {State} state
 * @param {PageData} data
 * @param {Tiles} tiles
 * @returns {State}
 */
export function withHash(hash, state, data, tiles) {
  const given = new URLSearchParams(hash);
  /** @type {Record<string, any>} */
  const found = {};
  const choices = { ...CHOICES, colour: data.colourings.filter(({ kind }) => kind !== "text").map(({ key }) => key) };
  for (const [name, allowed] of Object.entries(choices)) {
    const value = given.get(name);
    if (value !== null && allowed.includes(value)) found[name] = value;
  }
  const projection = `${given.get("alg") ?? state.alg}-${given.get("dim") ?? state.dim}`;
  if (Object.hasOwn(data.projections, projection)) {
    const [alg, dim] = projection.split("-");
    Object.assign(found, { alg, dim: Number(dim) });
  }
  for (const slot of SLOTS) {
    const id = given.get(slot);
    if (id) found[slot] = tiles.rowOfId(id);
  }
  const km = Number(given.get("km"));
  if (km >= 0 && km <= FARTHEST_KM) found.km = km;
  const layers = given.get("layers") ?? "";
  if (/^[0-9a-f]{1,8}$/.test(layers) && parseInt(layers, 16) <= allLayers(data)) found.layers = parseInt(layers, 16);
  found.filters = new Map(given.getAll("only").map((text) => filterOf(text, data)).filter((pair) => pair !== null));
  found.names = new Map(given.getAll("name").map((text) => namedCategory(text, data)).filter((pair) => pair !== null));
  found.saved = new Map(given.getAll("set").map((text) => savedSelection(text, tiles)).filter((pair) => pair !== null));
  found.selection = new Set(unpackSelection(given.get("sel") ?? "", tiles));
  return { ...state, ...found };
}

/**
 * @param {State} state
 * @param {Tiles} tiles
 */
export function hashOf(state, tiles) {
  const out = new URLSearchParams({ alg: state.alg, dim: String(state.dim), colour: state.colour });
  for (const slot of SLOTS) if (state[slot] >= 0) out.set(slot, tiles.id(state[slot]));
  if (state.km) out.set("km", String(state.km));
  for (const [name, [usual]] of Object.entries(CHOICES)) {
    const value = state[/** @type {keyof typeof CHOICES} */ (name)];
    if (value !== usual) out.set(name, value);
  }
  if (state.layers !== allLayers(tiles)) out.set("layers", state.layers.toString(16));
  for (const [name, rows] of state.saved) out.append("set", `${packSelection([...rows], tiles)}:${name}`);
  for (const [key, filter] of state.filters) out.append("only", `${encodeURIComponent(key)}:${filterText(filter)}`);
  for (const [category, name] of state.names) out.append("name", `${category}:${name}`);
  if (state.selection.size) out.set("sel", packSelection([...state.selection], tiles));
  return out.toString().replaceAll("%2F", "/");
}

/**
 * A name that a reader gave to a category, from "colouring:number:name".
 * @param {string} text
 * @param {PageData} data
 * @returns {[string, string] | null}
 */
function namedCategory(text, data) {
  const [, key, number, name] = /^([\w-]+):(\d+):(.+)$/s.exec(text) ?? [];
  const colouring = data.colourings.find((one) => one.key === key);
  if (colouring?.kind !== "category" || !colouring.editable || !colouring.categories[Number(number)]) return null;
  return [`${key}:${Number(number)}`, name.slice(0, LONGEST_NAME)];
}

/**
 * A named selection from "tiles:name".
 * @param {string} text
 * @param {Tiles} tiles
 * @returns {[string, ReadonlySet<number>] | null}
 */
function savedSelection(text, tiles) {
  const at = text.indexOf(":");
  const [rows, name] = [unpackSelection(text.slice(0, at), tiles), text.slice(at + 1).slice(0, LONGEST_NAME)];
  return rows.length && name ? [name, new Set(rows)] : null;
}

/** @param {Filter} filter */
function filterText(filter) {
  if (filter.kind === "range") return `${filter.low}..${filter.high}`;
  return filter.kind === "keep" ? `=${[...filter.categories].join(".")}` : `~${filter.text}`;
}

/**
 * A filter from "colouring:low..high", "colouring:=1.2.3" or "colouring:~text".
 * @param {string} text
 * @param {PageData} data
 * @returns {[string, Filter] | null}
 */
function filterOf(text, data) {
  const at = text.indexOf(":");
  const [name, rule] = [text.slice(0, at), text.slice(at + 1)];
  const colouring = data.colourings.find(({ key }) => encodeURIComponent(key) === name);
  if (colouring?.kind === "number") {
    const [low, high] = rule.split("..").map((part) => (part.trim() ? Number(part) : NaN));
    return Number.isFinite(low) && Number.isFinite(high) ? [colouring.key, { kind: "range", low, high }] : null;
  }
  if (colouring?.kind === "category" && /^=[-\d.]*$/.test(rule)) {
    const categories = rule.slice(1).split(".").filter(Boolean).map(Number);
    const known = categories.filter((one) => Number.isInteger(one) && one >= -1 && one < colouring.categories.length);
    return [colouring.key, { kind: "keep", categories: new Set(known) }];
  }
  return colouring?.kind === "text" && rule.startsWith("~") ? [colouring.key, { kind: "contains", text: rule.slice(1) }] : null;
}

/**
 * Selected tiles as the bits of the rectangle that holds them: "x.y.width.bits". Where most of the bits would be 0, the
 * sorted numbers of the tiles follow a "*", each as the difference from the one before in base 36. Rows mean nothing in
 * another page.
 * @param {number[]} rows
 * @param {Tiles} tiles
 */
function packSelection(rows, tiles) {
  const [xs, ys] = [rows.map((row) => tiles.mapX(row)), rows.map((row) => tiles.y(row))];
  const [left, top] = [xs.reduce((a, b) => Math.min(a, b)), ys.reduce((a, b) => Math.min(a, b))];
  const width = xs.reduce((a, b) => Math.max(a, b)) - left + 1;
  const height = ys.reduce((a, b) => Math.max(a, b)) - top + 1;
  if (width * height > MOST_BITS * rows.length) {
    const numbers = rows.map((row) => tiles.key(tiles.x(row), tiles.y(row))).sort((a, b) => a - b);
    return `*${numbers.map((number, i) => (number - (numbers[i - 1] ?? 0)).toString(36)).join(".")}`;
  }
  const bytes = new Uint8Array(Math.ceil((width * height) / 8));
  rows.forEach((_, i) => {
    const bit = (ys[i] - top) * width + xs[i] - left;
    bytes[bit >> 3] |= 1 << (bit & 7);
  });
  const bits = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  return `${left}.${top}.${width}.${bits.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "")}`;
}

/**
 * @param {string} packed
 * @param {Tiles} tiles
 */
function unpackSelection(packed, tiles) {
  if (packed.startsWith("*")) {
    let number = 0;
    const keys = packed.slice(1).split(".").map((step) => number += parseInt(step, 36));
    return keys.map((key) => tiles.rowOfKey(key)).filter((row) => row >= 0);
  }
  const [, left, top, width, bits] = /^(\d+)\.(\d+)\.(\d+)\.([\w-]*)$/.exec(packed) ?? [];
  /** @type {number[]} */
  const rows = [];
  if (!bits || !Number(width) || bits.length % 4 === 1) return rows;
  const bytes = bytesOf(bits.replaceAll("-", "+").replaceAll("_", "/").padEnd(Math.ceil(bits.length / 4) * 4, "="));
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    if (!((bytes[bit >> 3] >> (bit & 7)) & 1)) continue;
    const row = tiles.rowOnMap(Number(left) + (bit % Number(width)), Number(top) + Math.floor(bit / Number(width)));
    if (row >= 0) rows.push(row);
  }
  return rows;
}
