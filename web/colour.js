// Arithmetic of colours: red, green and blue from 0 to 255.

/** @import { Rgb } from "./types.d.ts" */

/**
 * @param {string} hex such as #12ab34
 * @returns {Rgb}
 */
export function rgbOf(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

/**
 * Red, green and blue of a colour as CSS writes it, #12ab34 or rgba(1, 2, 3, .5), and its opacity from 0 to 1.
 * @param {string} css
 * @returns {Rgb}
 */
export function rgbaOf(css) {
  if (css.startsWith("#")) return [...rgbOf(css), 1];
  const parts = (css.match(/[\d.]+/g) ?? []).map(Number);
  return [...parts.slice(0, 3), parts[3] ?? 1];
}

/** @param {Rgb} rgb */
export function cssOf(rgb) {
  return `rgb(${rgb.join(",")})`;
}

/**
 * @param {number} from
 * @param {number} to
 * @param {number} share
 */
export function mix(from, to, share) {
  return from + (to - from) * share;
}

/**
 * The colour, made lighter or darker where it would be lost on the page's background.
 * @param {Rgb} rgb
 * @param {boolean} dark
 */
export function readable(rgb, dark) {
  const light = (0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2]) / 255;
  if (dark && light < 0.3) return rgb.map((part) => Math.round(mix(part, 255, 0.3 + (0.3 - light))));
  if (!dark && light > 0.86) return rgb.map((part) => Math.round(part * 0.82));
  return rgb;
}

/**
 * @param {Rgb[]} ramp
 * @param {number} share from 0 to 1
 */
export function rampColour(ramp, share) {
  const at = Math.min(1, Math.max(0, share)) * (ramp.length - 1);
  const low = Math.min(ramp.length - 2, Math.floor(at));
  return ramp[low].map((part, c) => Math.round(mix(part, ramp[low + 1][c], at - low)));
}

/**
 * Colours (3 bytes a tile) as CSS writes them; equal ones share one string.
 * @param {Uint8Array} colours
 */
export function cssColours(colours) {
  /** @type {Map<number, string>} */
  const names = new Map();
  return Array.from({ length: colours.length / 3 }, (_, row) => {
    const value = (colours[3 * row] << 16) | (colours[3 * row + 1] << 8) | colours[3 * row + 2];
    const known = names.get(value);
    if (known) return known;
    const name = `#${value.toString(16).padStart(6, "0")}`;
    names.set(value, name);
    return name;
  });
}
