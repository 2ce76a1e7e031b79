// The panel of filters: a histogram or a list for each colouring, and the user's own files.

import { cssOf, rgbOf } from "./colour.js";
import { button, element, swatch } from "./dom.js";
import { categoryCounts, extentOf, filterable, histogram, passing } from "./filters.js";
import { numberText } from "./colourings.js";

/** @import { Explorer } from "./explorer.js" */
/** @import { Filtered } from "./filters.js" */
/** @import { CategoryColouring, Filter, NumberColouring, TextColouring } from "./types.d.ts" */

const STEPS = 200; // of the sliders of a range
const CATEGORIES_SHOWN = 14;
const TALLEST_PX = 34;

/** @param {Explorer} explorer */
export function filterPanel(explorer) {
  const { state, colourings } = explorer;
  const kept = explorer.passes ? explorer.passes.reduce((sum, one) => sum + one, 0) : colourings.count;
  return element("div", { class: "filters" },
    explorer.data.own_columns && ownFiles(explorer),
    element("div", { class: "row filter-sum" },
      element("strong", { role: "status" }, `${kept.toLocaleString("en")} of ${colourings.count.toLocaleString("en")} tiles pass`),
      button("Select them", () => explorer.select(explorer.passingRows()), { class: "button small", "aria-label": "Select them: the tiles that pass" }),
      state.filters.size > 0 && button("Clear", () => explorer.set({ filters: new Map() }),
        { class: "button small quiet", "aria-label": "Clear all filters" })),
    filterable(colourings).map((colouring) => filterOf(explorer, colouring)));
}

/** @param {Explorer} explorer */
function ownFiles(explorer) {
  const input = element("input", {
    type: "file", class: "sr-only", accept: ".csv,.tsv,.txt,.geojson,.json,.parquet,.geoparquet", "aria-label": "Add your own columns",
    onchange: () => { if (input.files?.length) explorer.addFiles([...input.files]); },
  });
  return element("div", { class: "own-files" },
    element("label", { class: "button small file" }, "Add your own columns", input),
    element("p", { class: "note" }, "CSV, GeoJSON or Parquet with lat and lon, x and y of tiles, or shapes. You can also drop the file "
      + "on the page. It does not leave this browser."),
    explorer.fileMessage && element("p", { class: "file-message" }, explorer.fileMessage));
}

/**
 * @param {Explorer} explorer
 * @param {Filtered} colouring
 */
function filterOf(explorer, colouring) {
  const { filters } = explorer.state;
  const passes = passing(explorer.colourings, filters, colouring.key);
  const isOn = filters.has(colouring.key);
  const body = colouring.kind === "number" ? rangeFilter(explorer, colouring, passes)
    : colouring.kind === "category" ? categoryFilter(explorer, colouring, passes) : textFilter(explorer, colouring);
  return element("section", { class: isOn ? "filter on" : "filter", "data-filter": colouring.key, "aria-label": colouring.label },
    element("h3", {}, colouring.label,
      isOn && button("×", () => explorer.filter(colouring.key, null),
        { class: "filter-clear", "aria-label": `Clear the filter ${colouring.label}` })), body);
}

/**
 * @param {Explorer} explorer
 * @param {NumberColouring} colouring
 * @param {Uint8Array | null} passes
 */
function rangeFilter(explorer, colouring, passes) {
  const extent = extentOf(explorer.colourings, colouring);
  if (!extent) return null;
  const { all, kept } = histogram(explorer.colourings, colouring, extent, passes);
  const filter = explorer.state.filters.get(colouring.key);
  const [low, high] = filter?.kind === "range" ? [filter.low, filter.high] : extent;
  const most = Math.max(...all);
  const width = (extent[1] - extent[0]) / all.length;
  const bars = all.map((count, i) => {
    const middle = extent[0] + (i + 0.5) * width;
    const bar = element("span", { class: middle >= low - width / 2 && middle <= high + width / 2 ? "bin" : "bin out",
      "data-all": count, "data-kept": kept[i], title: `${kept[i]} of ${count} tiles` });
    bar.style.cssText = `height:${count ? 2 + (TALLEST_PX * count) / most : 0}px;--kept:${count ? (100 * kept[i]) / count : 0}%`;
    return bar;
  });
  /** @param {number} step */
  const value = (step) => extent[0] + ((extent[1] - extent[0]) * step) / STEPS;
  /** @param {number} of */
  const step = (of) => Math.round(((of - extent[0]) / (extent[1] - extent[0] || 1)) * STEPS);
  const output = element("output", {}, rangeText(colouring, low, high));
  /** @param {string} label @param {number} at @param {number} other */
  const slider = (label, at, other) => {
    const input = element("input", { type: "range", min: 0, max: STEPS, step: 1, value: at,
      "aria-label": `${label} ${colouring.label}`, "aria-valuetext": numberText(colouring, value(at)),
      oninput: () => {
        const [from, to] = [Number(input.value), other].sort((a, b) => a - b);
        output.textContent = rangeText(colouring, value(from), value(to));
      },
      onchange: () => {
        const [from, to] = [Number(input.value), other].sort((a, b) => a - b);
        const isWhole = from === 0 && to === STEPS;
        explorer.filter(colouring.key, isWhole ? null : { kind: "range", low: value(from), high: to === STEPS ? extent[1] : value(to) });
      } });
    return input;
  };
  return element("div", { class: "range" }, element("div", { class: "bins" }, bars),
    slider("From", step(low), step(high)), slider("To", step(high), step(low)), output);
}

/**
 * @param {NumberColouring} colouring
 * @param {number} low
 * @param {number} high
 */
function rangeText(colouring, low, high) {
  return `${numberText(colouring, low)} – ${numberText(colouring, high)}`;
}

/**
 * @param {Explorer} explorer
 * @param {CategoryColouring} colouring
 * @param {Uint8Array | null} passes
 */
function categoryFilter(explorer, colouring, passes) {
  const { colourings } = explorer;
  const counts = categoryCounts(colourings, colouring, passes);
  const filter = explorer.state.filters.get(colouring.key);
  const everything = new Set(counts.map(([category]) => category));
  const kept = filter?.kind === "keep" ? filter.categories : everything;
  const most = counts[0]?.[1].all ?? 1;
  const entries = counts.slice(0, CATEGORIES_SHOWN).map(([category, count]) => {
    const name = colourings.nameOf(colouring, category);
    const input = element("input", { type: "checkbox", checked: kept.has(category), "aria-label": `Keep ${name}`,
      onchange: () => {
        const now = new Set(kept);
        if (input.checked) now.add(category);
        else now.delete(category);
        explorer.filter(colouring.key, now.size === everything.size ? null : { kind: "keep", categories: now });
      } });
    const bar = element("span", { class: "bar" });
    bar.style.cssText = `width:${(100 * count.kept) / most}%;background:var(--accent)`;
    return element("label", { class: "check" }, input,
      swatch(cssOf(rgbOf((colouring.categories[category] ?? colouring.none).colour))),
      element("span", { class: "check-name" }, name), element("span", { class: "bar-track" }, bar),
      element("span", { class: "bar-value", "data-kept": count.kept }, count.kept.toLocaleString("en")));
  });
  const others = counts.length - entries.length;
  return element("div", { class: "checks" }, entries,
    others > 0 && element("p", { class: "note" }, `and ${others} rarer ones`));
}

/**
 * @param {Explorer} explorer
 * @param {TextColouring} colouring
 */
function textFilter(explorer, colouring) {
  const filter = explorer.state.filters.get(colouring.key);
  const input = element("input", {
    type: "text", class: "contains", placeholder: "contains …", "aria-label": `${colouring.label} contains`,
    value: filter?.kind === "contains" ? filter.text : "",
    onchange: () => explorer.filter(colouring.key, /** @type {Filter | null} */ (
      input.value.trim() ? { kind: "contains", text: input.value.trim() } : null)),
  });
  return input;
}
