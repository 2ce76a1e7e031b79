// The selected tiles: what is frequent among them, and exports.

import { button, element, hint } from "./dom.js";
import { csvOf, download, geojsonOf } from "./exports.js";
import { tileButton } from "./tile_button.js";

/** @import { Explorer } from "./explorer.js" */
/** @import { Tiles } from "./tiles.js" */

const PICTURES_SHOWN = 18;
const PICTURE_PX = 56;
const BARS_SHOWN = 6;

/** @param {Explorer} explorer */
export function selectionPanel(explorer) {
  const { tiles, colourings } = explorer;
  const rows = [...explorer.state.selection];
  if (!rows.length) {
    return hint("Draw a box or a lasso among the dots or on the map, or click an entry of the legend. "
      + "Hold Shift to add to the selection.");
  }
  return element("div", { class: "selection" },
    element("h3", {}, `${rows.length.toLocaleString("en")} tiles selected`),
    layerBars(tiles, rows),
    element("div", { class: "row" },
      button("CSV", () => download(csvOf(tiles, colourings, rows), "tiles.csv", "text/csv"),
        { "aria-label": "Save the selection as CSV" }),
      button("GeoJSON", () => download(geojsonOf(tiles, colourings, rows), "tiles.geojson", "application/geo+json"),
        { "aria-label": "Save the selection as GeoJSON" }),
      button("Clear", () => explorer.select([]), { class: "button quiet", "aria-label": "Clear the selection" })),
    element("div", { class: "results" },
      spread(rows, PICTURES_SHOWN).map((row) => tileButton(explorer, row, PICTURE_PX))));
}

/**
 * At most `count` of the rows, evenly spaced.
 * @param {number[]} rows
 * @param {number} count
 */
function spread(rows, count) {
  if (rows.length <= count) return rows;
  return Array.from({ length: count }, (_, i) => rows[Math.floor((i * rows.length) / count)]);
}

/**
 * How many of the selected tiles have each main layer, beside the whole page.
 * @param {Tiles} tiles
 * @param {number[]} rows
 */
function layerBars({ layers, dominant }, rows) {
  /** @param {number[]} some */
  const shares = (some) => {
    const counts = new Array(layers.length).fill(0);
    for (const row of some) if (dominant[row] >= 0) counts[dominant[row]]++;
    return counts.map((count) => count / some.length);
  };
  const [here, everywhere] = [shares(rows), shares([...dominant.keys()])];
  const present = [...here.keys()].filter((layer) => here[layer] > 0);
  const order = present.sort((a, b) => here[b] - here[a]).slice(0, BARS_SHOWN);
  return element("div", { class: "bars" }, order.map((layer) => {
    const bar = element("span", { class: "bar" });
    bar.style.cssText = `width:${(here[layer] * 100).toFixed(1)}%;background:${layers[layer].colour}`;
    return element("div", { class: "bar-row" }, element("span", {}, layers[layer].name),
      element("span", { class: "bar-track" }, bar),
      element("span", { class: "bar-value" },
        `${Math.round(here[layer] * 100)} % (page ${Math.round(everywhere[layer] * 100)} %)`));
  }));
}
