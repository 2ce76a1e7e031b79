// Dots filled pixel by pixel, for machines without a graphics card.

import { context2d, element, pixelRatio, sizeCanvas } from "./dom.js";
import { SPARE_PX } from "./graphics.js";

/** @import { DotStyle } from "./types.d.ts" */
/** @typedef {{across: number, down: number, cover: number, line: number}} StampPixel one pixel of a disc, counted from its middle */

export class PixelDots {
  constructor() {
    this.isLayer = false;
    this.canvas = element("canvas");
    this.order = new Uint32Array(0);
    this.colours = new Uint32Array(0);
    this.image = new ImageData(1, 1);
    this.pixels = new Uint32Array(1); // of the image: opacity, blue, green, red
  }

  /**
   * @param {number} width of the view, in pixels of the page
   * @param {number} height
   */
  fit(width, height) {
    sizeCanvas(this.canvas, width, height, SPARE_PX);
    this.image = new ImageData(this.canvas.width, this.canvas.height);
    this.pixels = new Uint32Array(this.image.data.buffer);
  }

  /**
   * @param {Uint32Array<ArrayBuffer>} order rows of the dots to draw, those on top last
   * @param {Uint8Array<ArrayBuffer>} colours red, green, blue and opacity of every dot
   */
  paint(order, colours) {
    this.order = order;
    this.colours = new Uint32Array(colours.buffer);
  }

  /**
   * @param {Float32Array} positions x and y of every dot in pixels of the view; NaN is not drawn
   * @param {DotStyle} style
   */
  draw(positions, style) {
    this.pixels.fill(0);
    if (style.round) this.fillDiscs(positions, style);
    else this.fillSquares(positions, style.size);
    context2d(this.canvas).putImageData(this.image, 0, 0);
  }

  /**
   * @param {Float32Array} positions
   * @param {DotStyle} style
   */
  fillDiscs(positions, { size, line }) {
    const { colours, order, pixels } = this;
    const { width, height } = this.image;
    const ratio = pixelRatio();
    const stamp = stampOf(size * ratio, (line?.width ?? 0) * ratio);
    const reach = Math.max(...stamp.map(({ across }) => across));
    const steps = Int32Array.from(stamp, ({ across, down }) => down * width + across);
    const covers = Uint8Array.from(stamp, ({ cover }) => 255 * cover);
    const lines = Uint8Array.from(stamp, (pixel) => 255 * pixel.line);
    const [red, green, blue] = line?.colour ?? [0, 0, 0];
    const lineColour = (255 << 24) | (blue << 16) | (green << 8) | red;
    for (const row of order) {
      const x = Math.floor((positions[2 * row] + SPARE_PX) * ratio);
      const y = Math.floor((positions[2 * row + 1] + SPARE_PX) * ratio);
      if (!(x > -reach && y > -reach && x < width + reach && y < height + reach)) continue;
      const colour = colours[row];
      const middle = y * width + x;
      const opacity = colour >>> 24;
      const isInside = x >= reach && y >= reach && x < width - reach && y < height - reach;
      for (let i = 0; i < steps.length; i++) {
        if (!isInside) {
          const across = x + stamp[i].across;
          const down = y + stamp[i].down;
          if (across < 0 || across >= width || down < 0 || down >= height) continue;
        }
        const alpha = opacity === 255 ? covers[i] : (opacity * covers[i]) >> 8;
        const above = lines[i] ? blended(colour, lineColour, lines[i]) : colour;
        const at = middle + steps[i];
        pixels[at] = alpha === 255 ? above : blended(pixels[at], above, alpha);
      }
    }
  }

  /**
   * @param {Float32Array} positions
   * @param {number} size
   */
  fillSquares(positions, size) {
    const { colours, order, pixels } = this;
    const { width, height } = this.image;
    const ratio = pixelRatio();
    const half = (size * ratio) / 2;
    for (const row of order) {
      const x = (positions[2 * row] + SPARE_PX) * ratio;
      const y = (positions[2 * row + 1] + SPARE_PX) * ratio;
      const colour = colours[row];
      const left = Math.max(0, wholePixel(x - half));
      const right = Math.min(width, wholePixel(x + half));
      const bottom = Math.min(height, wholePixel(y + half));
      for (let down = Math.max(0, wholePixel(y - half)); down < bottom; down++) {
        for (let at = down * width + left; at < down * width + right; at++) pixels[at] = blended(pixels[at], colour, colour >>> 24);
      }
    }
  }

  clear() {
    context2d(this.canvas).clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  destroy() {}
}

/**
 * The pixels of a disc: how much of each it covers, and how much of that is the line around it.
 * @param {number} size in pixels of the canvas
 * @param {number} line its width
 * @returns {StampPixel[]}
 */
function stampOf(size, line) {
  const reach = Math.ceil(size / 2);
  /** @param {number} value */
  const share = (value) => Math.min(1, Math.max(0, value));
  const found = [];
  for (let down = -reach; down <= reach; down++) {
    for (let across = -reach; across <= reach; across++) {
      const inside = size / 2 - Math.hypot(across, down);
      const pixel = { across, down, cover: share(inside + 0.5), line: line ? 1 - share(inside - line + 0.5) : 0 };
      if (pixel.cover > 0) found.push(pixel);
    }
  }
  return found;
}

/**
 * The nearest whole pixel. Squares that touch must round their common edge alike, which float32 does not hold at halves.
 * @param {number} value
 */
function wholePixel(value) {
  return Math.floor(value + 0.51);
}

/**
 * One colour over another. Colours are packed as in an image: opacity, blue, green, red.
 * @param {number} below
 * @param {number} above
 * @param {number} alpha opacity of the colour above, from 0 to 255
 */
function blended(below, above, alpha) {
  const before = below >>> 24;
  if (!before) return (above & 0xffffff) | (alpha << 24);
  const share = alpha + (alpha >> 7); // of 256
  const rest = 256 - share;
  const redBlue = ((Math.imul(above & 0xff00ff, share) + Math.imul(below & 0xff00ff, rest)) >>> 8) & 0xff00ff;
  const green = ((Math.imul(above & 0xff00, share) + Math.imul(below & 0xff00, rest)) >>> 8) & 0xff00;
  return redBlue | green | ((alpha + ((before * rest) >> 8)) << 24);
}
