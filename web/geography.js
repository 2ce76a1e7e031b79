// Web Mercator tile numbers and places on the ground.

/** @import { LatLon, Point } from "./types.d.ts" */

/**
 * The place at tile coordinates; whole numbers are the north-west corner of a tile.
 * @param {number} x
 * @param {number} y
 * @param {number} zoom
 * @returns {LatLon}
 */
export function latlonOfTile(x, y, zoom) {
  const scale = 2 ** zoom;
  const lat = Math.atan(Math.sinh(Math.PI * (1 - (2 * y) / scale))) * (180 / Math.PI);
  return [lat, (x / scale) * 360 - 180];
}

/**
 * Tile coordinates of a place, with fractions.
 * @param {number} lat
 * @param {number} lon
 * @param {number} zoom
 * @returns {Point}
 */
export function tileOfLatlon(lat, lon, zoom) {
  const scale = 2 ** zoom;
  const y = ((1 - Math.asinh(Math.tan((lat * Math.PI) / 180)) / Math.PI) / 2) * scale;
  return [((lon + 180) / 360) * scale, y];
}

/**
 * The angle between two places as seen from the Earth's centre, in radians (haversine formula).
 * @param {LatLon} a
 * @param {LatLon} b
 */
export function angleBetween([latA, lonA], [latB, lonB]) {
  const radians = Math.PI / 180;
  const across = Math.sin(((lonB - lonA) * radians) / 2) ** 2;
  const along = Math.sin(((latB - latA) * radians) / 2) ** 2;
  const chord = along + Math.cos(latA * radians) * Math.cos(latB * radians) * across;
  return 2 * Math.asin(Math.min(1, Math.sqrt(chord)));
}

/** @param {number} km */
export function formatKm(km) {
  return km < 1 ? `${Math.round(km * 1000)} m` : `${km.toFixed(1)} km`;
}

/**
 * The remainder of a division, never negative.
 * @param {number} value
 * @param {number} divisor
 */
export function modulo(value, divisor) {
  return ((value % divisor) + divisor) % divisor;
}
