// The legend: what the colours mean, and how many tiles have each.

import { cssOf, rampColour } from "./colour.js";
import { button, element, swatch } from "./dom.js";
import { LONGEST_NAME } from "./state.js";

/** @import { Explorer } from "./explorer.js" */
/** @import { Legend, LegendItem } from "./types.d.ts" */

const TALLEST_BIN_PX = 21;
const [RAMP_PX, LINE_PX] = [220, 18]; // in the saved picture

/**
 * Elements of the legend; an entry selects its tiles.
 * @param {Explorer} explorer
 * @param {Legend} legend
 */
export function legendEntries(explorer, legend) {
  switch (legend.kind) {
    case "category": return legend.items.map((item) => categoryEntry(explorer, legend, item));
    case "ramp": return [rampLegend(legend)];
    case "rgb": return [element("div", { class: "ramp" }, legend.channels.map(({ name, colour }) =>
      element("span", { class: "chip plain" }, swatch(colour), name)))];
    case "hint": return [element("span", { class: "legend-hint" }, legend.text)];
  }
}

/**
 * A category: its button selects its tiles, and another one gives it a new name where the reader may do that.
 * @param {Explorer} explorer
 * @param {Extract<Legend, {kind: "category"}>} legend
 * @param {LegendItem} item
 */
function categoryEntry(explorer, legend, item) {
  const count = item.count.toLocaleString("en");
  const chip = button([swatch(cssOf(item.colour)), item.name, element("span", { class: "count" }, count)], () => {}, {
    class: "chip", "data-category": item.name, title: `Select these ${count} tiles`,
    onclick: (/** @type {MouseEvent} */ event) => {
      const rows = [...legend.values.keys()];
      explorer.select(rows.filter((row) => Math.max(-1, legend.values[row]) === item.category), explorer.selectionMode(event));
    },
  });
  if (!legend.editable || item.category < 0) return chip;
  const pair = element("span", { class: "chip-pair" }, chip, button("✎", () => editName(explorer, legend.key, item, pair),
    { class: "chip-edit", "aria-label": `Rename ${item.name}`, title: "Give it another name" }));
  return pair;
}

/**
 * A text field in place of a legend entry; Enter keeps the name, Escape does not, no name restores the first one.
 * @param {Explorer} explorer
 * @param {string} key of the colouring
 * @param {LegendItem} item
 * @param {HTMLElement} entry
 */
function editName(explorer, key, item, entry) {
  const input = element("input", {
    type: "text", class: "chip-name", value: item.name, maxlength: LONGEST_NAME, "aria-label": `New name for ${item.name}`,
    onkeydown: (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== "Enter" && event.key !== "Escape") return;
      event.stopPropagation();
      if (event.key === "Escape") input.value = item.name;
      input.blur();
    },
    onblur: () => explorer.rename(key, item.category, input.value.trim() === item.name ? null : input.value.trim()),
  });
  entry.replaceChildren(input);
  input.focus();
  input.select();
}

/** @param {Extract<Legend, {kind: "ramp"}>} legend */
function rampLegend({ ramp, bins, labels, caption }) {
  const most = Math.max(...bins);
  const bars = bins.map((count, i) => {
    const title = `${count.toLocaleString("en")} tiles`;
    const bar = element("span", { class: "ramp-bin", title, "data-count": count });
    const height = count ? 3 + (TALLEST_BIN_PX * count) / most : 0;
    bar.style.cssText = `height:${height}px;background:${cssOf(rampColour(ramp, (i + 0.5) / bins.length))}`;
    return bar;
  });
  return element("div", { class: "ramp" }, element("span", {}, labels[0]), element("div", { class: "ramp-bins" }, bars),
    element("span", {}, labels[1]), element("span", { class: "legend-hint" }, caption));
}

/**
 * The legend of the saved picture, in lines of at most `width` pixels. Returns its height.
 * @param {CanvasRenderingContext2D} context
 * @param {Legend} legend
 * @param {string} ink colour of the text
 * @param {number} x
 * @param {number} y of the first line of text
 * @param {number} width
 */
export function drawLegend(context, legend, ink, x, y, width) {
  context.font = "12px system-ui, sans-serif";
  /** @type {[string, string][]} */
  let entries = [];
  if (legend.kind === "rgb") entries = legend.channels.map(({ name, colour }) => [colour, name]);
  if (legend.kind === "category") {
    entries = legend.items.map(({ name, colour, count }) => [cssOf(colour), `${name} ${count.toLocaleString("en")}`]);
  }
  let [left, line] = [x, y];
  for (const [colour, text] of entries) {
    const wide = context.measureText(text).width + 15;
    if (left > x && left + wide > x + width) [left, line] = [x, line + LINE_PX];
    context.fillStyle = colour;
    context.fillRect(left, line - 9, 10, 10);
    context.fillStyle = ink;
    context.fillText(text, left + 15, line, width - 15);
    left += wide + 17;
  }
  if (legend.kind === "ramp") {
    const { ramp, labels, caption } = legend;
    const gradient = context.createLinearGradient(x, 0, x + RAMP_PX, 0);
    ramp.forEach((colour, i) => gradient.addColorStop(i / (ramp.length - 1), cssOf(colour)));
    context.fillStyle = gradient;
    context.fillRect(x, y - 10, RAMP_PX, 10);
    context.fillStyle = ink;
    context.fillText(`${labels.join(" – ")} ${caption}`, x + RAMP_PX + 10, y, width - RAMP_PX - 10);
  }
  return line - y + LINE_PX;
}
