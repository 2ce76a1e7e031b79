// Arrays that Python packed as base64 (explorer_data.packed).

/** @import { NumberArray, Packed, PackedVectors } from "./types.d.ts" */

/** @type {Record<string, new (buffer: ArrayBufferLike) => NumberArray>} */
const ARRAY_TYPES = {
  int8: Int8Array, uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array,
  int32: Int32Array, uint32: Uint32Array, float32: Float32Array,
};

/**
 * @param {string} base64
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function bytesOf(base64) {
  const letters = atob(base64);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i); // ten times faster than Uint8Array.from
  return bytes;
}

/**
 * The packed array, flat.
 * @param {Packed} packed
 */
export function arrayOf(packed) {
  return new ARRAY_TYPES[packed.dtype](bytesOf(packed.data).buffer);
}

/**
 * Vectors of `size` numbers each, one after another, from the whole numbers that Python rounded them to.
 * @param {PackedVectors} packed
 * @param {number} size
 */
export function vectorsOf(packed, size) {
  const [steps, scale, mean] = [arrayOf(packed.steps), arrayOf(packed.scale), arrayOf(packed.mean)];
  const result = new Float32Array(steps.length);
  for (let row = 0, at = 0; row < scale.length; row++) {
    for (let i = 0; i < size; i++, at++) result[at] = mean[i] + scale[row] * steps[at];
  }
  return result;
}
