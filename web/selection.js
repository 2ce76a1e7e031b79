// The selected tiles: what is frequent among them beside the whole page, named selections, and exports.

import { button, element, hint } from "./dom.js";
import { csvOf, download, geojsonOf, parquetOf } from "./exports.js";
import { numberText } from "./colourings.js";
import { LONGEST_NAME } from "./state.js";
import { tileButton } from "./tile_button.js";

/** @import { Explorer } from "./explorer.js" */
/** @import { NumberColouring, SelectionMode } from "./types.d.ts" */
/** @typedef {{name: string, here: number, everywhere: number}} Share shares of the selected tiles and of all */

const PICTURES_SHOWN = 18;
const PICTURE_PX = 56;
const BARS_SHOWN = 7;
const SMOOTHING = 0.02; // so that what is rare everywhere is not called over-represented
/** @type {[SelectionMode, string, string][]} */
const MODES = [["new", "New", "Drawing starts a new selection"], ["add", "Add", "Drawing adds tiles (or hold Shift)"],
  ["remove", "Remove", "Drawing takes tiles away (or hold Alt)"]];

/** @param {Explorer} explorer */
export function selectionPanel(explorer) {
  const rows = [...explorer.state.selection];
  return element("div", { class: rows.length ? "selection" : "no-selection" },
    element("div", { class: "segmented", role: "group", "aria-label": "What drawing does" }, MODES.map(([mode, name, title]) =>
      button(name, () => explorer.set({ mode }), { class: false, "data-set": "mode", "data-value": mode, title, "aria-label": name,
        "aria-pressed": String(explorer.state.mode === mode) }))),
    rows.length ? selected(explorer, rows)
      : hint("Draw a box or a lasso among the dots or on the map, or click an entry of the legend. "
        + "Hold Shift to add to the selection, Alt to take away."),
    savedSelections(explorer));
}

/**
 * @param {Explorer} explorer
 * @param {number[]} rows
 */
function selected(explorer, rows) {
  const { tiles, colourings } = explorer;
  return [
    element("h3", {}, `${rows.length.toLocaleString("en")} tiles selected`),
    bars(explorer.words.ofTile ? wordShares(explorer, rows) : layerShares(explorer, rows)),
    numberMeans(explorer, rows),
    element("div", { class: "row" },
      button("CSV", () => download(csvOf(tiles, colourings, rows), "tiles.csv", "text/csv"),
        { "aria-label": "Save the selection as CSV" }),
      button("GeoJSON", () => download(geojsonOf(tiles, colourings, rows), "tiles.geojson", "application/geo+json"),
        { "aria-label": "Save the selection as GeoJSON" }),
      button("Parquet", () => download(parquetOf(tiles, colourings, rows), "tiles.parquet", "application/vnd.apache.parquet"),
        { "aria-label": "Save the selection as Parquet" }),
      button("Invert", () => explorer.invertSelection(), { class: "button quiet", "aria-label": "Invert the selection" }),
      button("Clear", () => explorer.select([]), { class: "button quiet", "aria-label": "Clear the selection" })),
    element("div", { class: "results" },
      spread(rows, PICTURES_SHOWN).map((row) => tileButton(explorer, row, PICTURE_PX))),
  ];
}

/**
 * Selections that have a name: it brings them back, also from a link.
 * @param {Explorer} explorer
 */
function savedSelections(explorer) {
  const { state } = explorer;
  const input = element("input", { type: "text", class: "contains", placeholder: "Name of this selection",
    "aria-label": "Name of this selection", maxlength: LONGEST_NAME });
  /** @param {Event} event */
  const onsubmit = (event) => {
    event.preventDefault();
    if (input.value.trim()) explorer.saveSelection(input.value.trim());
  };
  return element("div", { class: "saved" },
    state.selection.size > 0 && element("form", { class: "row", onsubmit }, input,
      element("button", { type: "submit", class: "button small" }, "Keep")),
    [...state.saved].map(([name, rows]) => element("div", { class: "row saved-row", "data-saved": name },
      button([name, element("span", { class: "count" }, rows.size.toLocaleString("en"))], () => explorer.select([...rows]),
        { class: "chip", "aria-label": `Select ${name} again` }),
      button("×", () => explorer.forgetSelection(name), { class: "filter-clear", "aria-label": `Forget ${name}` }))));
}

/**
 * At most `count` of the rows, evenly spaced.
 * @param {number[]} rows
 * @param {number} count
 */
export function spread(rows, count) {
  if (rows.length <= count) return rows;
  return Array.from({ length: count }, (_, i) => rows[Math.floor((i * rows.length) / count)]);
}

/**
 * What is more frequent among the selected tiles than on the page, the most over-represented first.
 * @param {Explorer} explorer
 * @param {number[]} rows
 * @returns {Share[]}
 */
function wordShares({ words, tiles }, rows) {
  /** @param {number[]} some */
  const shares = (some) => {
    const counts = new Float64Array(words.texts.length);
    for (const row of some) for (const word of words.indices(row)) counts[word]++;
    return counts.map((count) => count / some.length);
  };
  const [here, everywhere] = [shares(rows), shares([...tiles.centres.keys()])];
  const found = words.texts.map((name, i) => ({ name, here: here[i], everywhere: everywhere[i] }));
  /** @param {Share} share */
  const score = (share) => share.here * Math.log((share.here + SMOOTHING) / (share.everywhere + SMOOTHING));
  return found.filter((share) => share.here > 0).sort((a, b) => score(b) - score(a)).slice(0, BARS_SHOWN);
}

/**
 * Without words: how many of the selected tiles have each main layer.
 * @param {Explorer} explorer
 * @param {number[]} rows
 * @returns {Share[]}
 */
function layerShares({ tiles: { layers, dominant } }, rows) {
  /** @param {number[]} some */
  const shares = (some) => {
    const counts = new Array(layers.length).fill(0);
    for (const row of some) if (dominant[row] >= 0) counts[dominant[row]]++;
    return counts.map((count) => count / some.length);
  };
  const [here, everywhere] = [shares(rows), shares([...dominant.keys()])];
  const found = layers.map(({ name }, i) => ({ name, here: here[i], everywhere: everywhere[i] }));
  return found.filter((share) => share.here > 0).sort((a, b) => b.here - a.here).slice(0, BARS_SHOWN);
}

/** @param {Share[]} shares */
function bars(shares) {
  return element("div", { class: "bars" }, shares.map(({ name, here, everywhere }) => {
    const bar = element("span", { class: "bar" });
    bar.style.cssText = `width:${(here * 100).toFixed(1)}%;background:var(--accent)`;
    const mark = element("span", { class: "bar-mark", title: "whole page" });
    mark.style.left = `${(everywhere * 100).toFixed(1)}%`;
    return element("div", { class: "bar-row", "data-word": name, "data-here": here.toFixed(4), "data-page": everywhere.toFixed(4) },
      element("span", {}, name), element("span", { class: "bar-track" }, bar, mark),
      element("span", { class: "bar-value" }, `${Math.round(here * 100)} % (page ${Math.round(everywhere * 100)} %)`));
  }));
}

/**
 * The mean of every column of numbers, of the selected tiles and of all.
 * @param {Explorer} explorer
 * @param {number[]} rows
 */
function numberMeans({ colourings }, rows) {
  const numbers = /** @type {NumberColouring[]} */ ([...colourings.byKey.values()].filter(({ kind }) => kind === "number"));
  /** @param {Iterable<number>} some */
  const mean = (some) => {
    const known = [...some].filter((value) => !Number.isNaN(value));
    return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : NaN;
  };
  return element("dl", { class: "means" }, numbers.map((colouring) => {
    const values = colourings.valuesOf(colouring.key);
    const [here, everywhere] = [mean(rows.map((row) => values[row])), mean(values)];
    return Number.isNaN(here) ? null : element("div", { "data-mean": colouring.key }, element("dt", {}, `mean ${colouring.label}`),
      element("dd", {}, `${numberText(colouring, here)} (page ${numberText(colouring, everywhere)})`));
  }));
}
