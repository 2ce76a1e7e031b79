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
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const letters = atob(base64);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i); // ten times faster than Uint8Array.from
  return bytes;
}

/**
 * Bytes that Python compressed with gzip.
 * @param {string} base64
 */
export function inflated(base64) {
  return new Response(new Blob([bytesOf(base64)]).stream().pipeThrough(new DecompressionStream("gzip")));
}

/**
 * Decompress every array in the page's data that is compressed, in place.
 * @param {any} data
 */
export async function inflateArrays(data) {
  if (typeof data !== "object" || data === null) return;
  if (typeof data.gzip === "string") {
    data.data = await inflated(data.gzip).arrayBuffer();
    delete data.gzip;
  } else for (const part of Object.values(data)) await inflateArrays(part);
}

/**
 * The packed array, flat.
 * @param {Packed} packed
 */
export function arrayOf(packed) {
  if (packed.data === undefined) throw new Error("this array is still compressed");
  return new ARRAY_TYPES[packed.dtype](typeof packed.data === "string" ? bytesOf(packed.data).buffer : packed.data);
}

/**
 * Vectors of `size` numbers each, one after another, from the whole numbers that Python rounded them to.
 * @param {PackedVectors} packed
 * @param {number} size
 */
export function vectorsOf(packed, size) {
  const [steps, scale, mean] = [arrayOf(packed.steps), arrayOf(packed.scale), arrayOf(packed.mean)];
  const result = new Float32Array(steps.length);
  for (let row = 0, at = 0; at < steps.length; row++) {
    const factor = scale[scale.length === 1 ? 0 : row];
    for (let i = 0; i < size; i++, at++) result[at] = mean[i] + factor * steps[at];
  }
  return result;
}
