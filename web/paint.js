// Painting a tile from the brightness of its layers, with the colour tables that Python sends (tile_images.composite).

import { arrayOf } from "./arrays.js";

/** @import { NumberArray, PageData, Rgb } from "./types.d.ts" */
/** @typedef {{layer: number, grown: boolean, colours: NumberArray, opacity: NumberArray}} Coat */

const LEVELS = 256;

export class Paint {
  /** @param {PageData["paint"]} data */
  constructor(data) {
    /** @type {Rgb} */
    this.ground = data.ground;
    /** @type {Coat[]} */
    this.coats = data.coats.map(({ layer, grown, colours, opacity }) =>
      ({ layer, grown, colours: arrayOf(colours), opacity: arrayOf(opacity) }));
    this.layerColours = arrayOf(data.layers);
  }

  /**
   * The layers that `mask` gives, painted over each other.
   * @param {number} size of the picture, in pixels
   * @param {(layer: number) => Uint8Array | null} mask brightness of a layer, null to leave it out
   */
  compose(size, mask) {
    const pixels = Float32Array.from({ length: 3 * size * size }, (_, i) => this.ground[i % 3]);
    for (const { layer, grown, colours, opacity } of this.coats) {
      const levels = mask(layer);
      (levels && grown ? spread(levels, size) : levels)?.forEach((level, i) => {
        if (!level) return;
        for (let c = 0; c < 3; c++) pixels[3 * i + c] += (colours[3 * level + c] - pixels[3 * i + c]) * opacity[level];
      });
    }
    return imageOf(size, (i, c) => pixels[3 * i + c] + 0.5);
  }

  /**
   * One layer in its own colour.
   * @param {number} size
   * @param {number} layer
   * @param {Uint8Array} levels
   */
  single(size, layer, levels) {
    return imageOf(size, (i, c) => this.layerColours[3 * (LEVELS * layer + levels[i]) + c]);
  }
}

/**
 * @param {number} size
 * @param {(pixel: number, channel: number) => number} value
 */
function imageOf(size, value) {
  const image = new ImageData(size, size);
  for (let i = 0; i < size * size; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = Math.floor(value(i, c));
    image.data[4 * i + 3] = 255;
  }
  return image;
}

/**
 * The mask with every pixel spread to its four neighbours: the dark edge of roads.
 * @param {Uint8Array} mask
 * @param {number} size
 */
function spread(mask, size) {
  return mask.map((level, i) => {
    const column = i % size;
    return Math.max(
      level,
      i >= size ? mask[i - size] : 0,
      i < size * (size - 1) ? mask[i + size] : 0,
      column > 0 ? mask[i - 1] : 0,
      column < size - 1 ? mask[i + 1] : 0,
    );
  });
}
