// Why a tile is similar to the picked one: words, and bars of what was measured with the network.

import { element, swatch } from "./dom.js";

/** @import { Explorer } from "./explorer.js" */
/** @import { Child } from "./types.d.ts" */
/** @typedef {{name: string, change: number, colour: string}} Part */

const SMALLEST = 0.002; // a part that changes the similarity by less is left out
const SHARED_SHOWN = 3;
const PLACE_COLOURS = ["var(--accent)", "var(--around)"];

/**
 * @param {Explorer} explorer
 * @param {number} a
 * @param {number} b
 * @param {Explorer} [there] the city of b, if it is another one
 * @returns {Child}
 */
export function reasonLines(explorer, a, b, there = explorer) {
  const { tiles, search } = explorer;
  const words = wordLine(explorer, a, b, there);
  const [measured, other] = [search.reasonVectors, there.search.reasonVectors];
  if (!measured || !other) return [words ?? sharedLayers(explorer, a, b, there)];
  const changes = measured.contributions(tiles, a, b, other, there.tiles);
  const layers = changes.map((change, i) => ({ ...part(tiles.layers[i]), change }));
  const place = measured.placeContributions(a, b, other).map(({ name, change }, i) =>
    ({ name, change, colour: PLACE_COLOURS[i % PLACE_COLOURS.length] }));
  return [words, layerBar(layers), place.length > 0 && placeBar(place)];
}

/** @param {{name: string, colour: string}} layer */
function part({ name, colour }) {
  return { name, colour };
}

/**
 * Two or three words: what both tiles show, what only one of them does.
 * @param {Explorer} explorer
 * @param {number} a
 * @param {number} b
 * @param {Explorer} there
 */
function wordLine({ words }, a, b, there) {
  if (!words.ofTile || !there.words.ofTile) return null;
  const { same, added, missing } = words.compare(a, b, there.words);
  if (!same.length && !added.length && !missing.length) return null;
  return element("div", { class: "reason-words" },
    same.length > 0 && element("span", { class: "same" }, element("b", {}, "both "), same.join(", ")),
    added.length > 0 && element("span", { class: "differs" }, element("b", {}, "only there "), added.join(", ")),
    missing.length > 0 && element("span", { class: "differs" }, element("b", {}, "only here "), missing.join(", ")));
}

/**
 * One bar: layers that make the two similar in full colour, then those that tell them apart, hatched.
 * @param {Part[]} parts
 */
function layerBar(parts) {
  const strong = parts.filter(({ change }) => Math.abs(change) >= SMALLEST)
    .sort((one, other) => other.change - one.change);
  const text = strong.map(told).join(", ");
  return element("div", { class: "reasons", role: "img", "aria-label": `Layers: ${text || "none alone explains it"}`,
    title: `Similarity lost without a layer: ${text || "no single layer explains it"}. Hatched layers tell the two apart.` },
  segments(strong), legendOf(strong));
}

/**
 * How much is the place itself, and how much is what lies around it.
 * @param {Part[]} parts
 */
function placeBar(parts) {
  return element("div", { class: "reasons place", role: "img", "aria-label": parts.map(told).join(", "),
    title: `Similarity lost without a part: ${parts.map(told).join(", ")}` },
  segments(parts), element("span", { class: "reason" }, placeText(parts)));
}

/** @param {Part[]} parts */
function placeText(parts) {
  const [place, around] = parts.map(({ change }) => Math.max(0, change));
  const share = Math.round((100 * place) / (place + around || 1));
  return place + around > 0 ? `${share} % place, ${100 - share} % around` : "neither alone";
}

/** @param {Part[]} parts */
function segments(parts) {
  const sum = parts.reduce((total, { change }) => total + Math.abs(change), 0) || 1;
  return element("span", { class: "reason-bar" }, parts.map(({ name, change, colour }) => {
    const segment = element("span", {
      class: change < 0 ? "segment differs" : "segment", "data-part": name, "data-change": change.toFixed(3),
    });
    segment.style.cssText = `width:${((100 * Math.abs(change)) / sum).toFixed(1)}%;--part:${colour}`;
    return segment;
  }));
}

/**
 * The strongest layer of the bar by name.
 * @param {Part[]} parts
 */
function legendOf(parts) {
  const strongest = parts.reduce((best, one) => (Math.abs(one.change) > Math.abs(best?.change ?? 0) ? one : best),
    /** @type {Part | null} */ (null));
  return element("span", { class: "reason" }, strongest ? [swatch(strongest.colour), strongest.name] : "no single layer");
}

/** @param {Part} part */
function told({ name, change }) {
  return `${name} ${change > 0 ? "+" : "−"}${Math.abs(change).toFixed(2)}`;
}

/**
 * Without words and without measured reasons: the layers that both tiles show most of.
 * @param {Explorer} explorer
 * @param {number} a
 * @param {number} b
 * @param {Explorer} there
 */
function sharedLayers({ tiles: { layers, layerMass } }, a, b, there) {
  const massThere = there.tiles.layerMass;
  const shared = layers
    .map((layer, i) => ({ layer, mass: Math.min(layerMass[a * layers.length + i], massThere[b * layers.length + i]) }))
    .filter(({ mass }) => mass > 0)
    .sort((one, other) => other.mass - one.mass)
    .slice(0, SHARED_SHOWN);
  return element("div", { class: "reasons", title: "Layers that both tiles show; not measured with the network" },
    "both show ", shared.map(({ layer }) => element("span", { class: "reason" }, swatch(layer.colour), layer.name)));
}
