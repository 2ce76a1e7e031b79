// Start of a page that is one file: read the data, show what is opened, unpack Plotly.

import { inflateArrays, inflated } from "./arrays.js";

/** @import { PageData, PlotlyApi } from "./types.d.ts" */

/** @param {string} id */
function part(id) {
  return /** @type {HTMLElement} */ (document.getElementById(id));
}

/**
 * A text that is in the page as base64 of gzip.
 * @param {string} id
 */
function unpacked(id) {
  return inflated((part(id).textContent ?? "").trim()).text();
}

/**
 * Run Plotly's script.
 * @returns {Promise<PlotlyApi>}
 */
async function unpackPlotly() {
  const script = document.createElement("script");
  script.textContent = await unpacked("plotly");
  document.head.append(script);
  if (!window.Plotly) throw new Error("Plotly did not start");
  return window.Plotly;
}

/**
 * @param {(root: HTMLElement, data: PageData, plotly: () => Promise<PlotlyApi>) => Promise<void>} open
 */
export async function startPage(open) {
  const root = part("explorer");
  try {
    const data = JSON.parse(await unpacked("data"));
    await inflateArrays(data.reasons);
    await inflateArrays(data.compare?.other?.reasons);
    await open(root, data, unpackPlotly);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    root.textContent = `This page could not start: ${reason}. Current versions of all common browsers open it.`;
    throw error;
  }
}
