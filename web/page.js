// Start of the page that is one file: read the data, show the explorer, unpack Plotly.

import { bytesOf } from "./arrays.js";
import { Explorer } from "./explorer.js";

/** @import { PlotlyApi } from "./types.d.ts" */

/** @param {string} id */
function part(id) {
  return /** @type {HTMLElement} */ (document.getElementById(id));
}

/**
 * Run Plotly's script, which is in the page as base64 of gzip.
 * @returns {Promise<PlotlyApi>}
 */
async function unpackPlotly() {
  const packed = new Blob([bytesOf((part("plotly").textContent ?? "").trim())]).stream();
  const script = document.createElement("script");
  script.textContent = await new Response(packed.pipeThrough(new DecompressionStream("gzip"))).text();
  document.head.append(script);
  if (!window.Plotly) throw new Error("Plotly did not start");
  return window.Plotly;
}

async function startPage() {
  const root = part("explorer");
  try {
    const data = JSON.parse(part("data").textContent ?? "");
    await new Explorer(root, data, { plotly: unpackPlotly }).start();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    root.textContent = `This page could not start: ${reason}. Current versions of all common browsers open it.`;
    throw error;
  }
}

startPage();
