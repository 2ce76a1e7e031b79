// Building blocks of the page: elements, buttons, sliders, canvases, and waiting for the browser.

import { SPARE_PX, graphics } from "./graphics.js";

/** @import { Child } from "./types.d.ts" */

/**
 * A DOM element. Text is always text, never markup; an attribute that starts with "on" is a listener; true and false
 * switch an attribute on and off.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, any>} attributes
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  appendTo(node, children);
  return node;
}

/**
 * @param {HTMLElement} node
 * @param {Child[]} children
 */
function appendTo(node, children) {
  for (const child of children) {
    if (Array.isArray(child)) appendTo(node, child);
    else if (child != null && child !== false) node.append(child);
  }
}

/**
 * @param {Child} content
 * @param {() => void} onclick
 * @param {Record<string, any>} attributes
 */
export function button(content, onclick, attributes = {}) {
  return element("button", { type: "button", class: "button", onclick, ...attributes }, content);
}

/**
 * A small square of a colour.
 * @param {string} colour
 */
export function swatch(colour) {
  const square = element("span", { class: "swatch", "aria-hidden": "true" });
  square.style.background = colour;
  return square;
}

/**
 * @param {string} label
 * @param {number} value
 * @param {[number, number, number]} range lowest, highest, step
 * @param {(value: number) => string} show
 * @param {(value: number) => void} onChange
 */
export function slider(label, value, [min, max, step], show, onChange) {
  const output = element("output", {}, show(value));
  const input = element("input", {
    type: "range", min, max, step, value, "aria-label": label,
    oninput: () => { output.textContent = show(Number(input.value)); },
    onchange: () => onChange(Number(input.value)),
  });
  return element("label", { class: "slider" }, element("span", {}, label), input, output);
}

/** @param {string} text */
export function hint(text) {
  return element("p", { class: "hint" }, text);
}

/**
 * Names and values; entries without a value are left out.
 * @param {[string, string][]} facts
 */
export function factList(facts) {
  return element("dl", {}, facts.filter(([, value]) => value).map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

/**
 * Without a graphics card the pixels stay in memory, where drawing is faster.
 * @param {HTMLCanvasElement} canvas
 * @param {CanvasRenderingContext2DSettings} settings
 */
export function context2d(canvas, settings = { willReadFrequently: !graphics().card }) {
  return /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", settings));
}

/** How many pixels of a canvas stand for one of the page. */
export function pixelRatio() {
  return Math.min(2, window.devicePixelRatio || 1);
}

/**
 * Give a canvas a size in pixels of the page.
 * @param {HTMLCanvasElement} canvas
 * @param {number} width
 * @param {number} height
 * @param {number} spare how far it reaches beyond this size on every side
 */
export function sizeCanvas(canvas, width, height, spare = 0) {
  const ratio = pixelRatio();
  const [wide, high] = [width + 2 * spare, height + 2 * spare];
  canvas.width = Math.max(1, Math.round(wide * ratio));
  canvas.height = Math.max(1, Math.round(high * ratio));
  canvas.style.cssText = `left:${-spare}px;top:${-spare}px;width:${wide}px;height:${high}px`;
}

/**
 * Give a canvas a size, and let its 2-D context count in pixels of the page.
 * @param {HTMLCanvasElement} canvas
 * @param {number} width
 * @param {number} height
 * @param {number} spare as for `sizeCanvas`; 0 is the corner of the view
 */
export function fitCanvas(canvas, width, height, spare = 0) {
  const ratio = pixelRatio();
  sizeCanvas(canvas, width, height, spare);
  context2d(canvas).setTransform(ratio, 0, 0, ratio, spare * ratio, spare * ratio);
}

/**
 * Draw a canvas of a view into another picture of that view.
 * @param {CanvasRenderingContext2D} context
 * @param {HTMLCanvasElement} canvas which reaches `SPARE_PX` beyond the view
 */
export function copyCanvas(context, canvas) {
  const ratio = pixelRatio();
  context.drawImage(canvas, -SPARE_PX, -SPARE_PX, canvas.width / ratio, canvas.height / ratio);
}

/** @returns {Promise<void>} */
export function nextFrame() {
  return new Promise((resolve) => requestAnimationFrame(() => resolve()));
}

/**
 * Resolves when what was drawn is on the screen.
 * @returns {Promise<void>}
 */
export function painted() {
  return new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
}

/**
 * @param {string} source
 * @returns {Promise<HTMLImageElement>}
 */
export function loadedImage(source) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error("a picture could not be read"));
    image.src = source;
  });
}
