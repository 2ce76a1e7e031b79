// The tiles of the page by row: where each one is and which layers are drawn on it.

import { arrayOf } from "./arrays.js";
import { angleBetween, latlonOfTile, modulo } from "./geography.js";

/** @import { LatLon, PageData } from "./types.d.ts" */

/** @param {number} bits */
function bitCount(bits) {
  let count = 0;
  for (; bits; bits &= bits - 1) count++;
  return count;
}

export class Tiles {
  /** @param {PageData} data */
  constructor(data) {
    this.zoom = data.zoom;
    this.count = data.count;
    this.layers = data.layers;
    this.nothingDrawn = data.nothing_drawn;
    this.earthRadiusKm = data.earth_radius_km;
    this.columns = 2 ** data.zoom; // of tiles around the Earth
    this.west = data.map.origin[0];
    this.xy = arrayOf(data.arrays.tile_xy);
    this.dominant = arrayOf(data.arrays.dominant_layer);
    this.layerBits = arrayOf(data.arrays.layer_bits);
    this.layerMass = arrayOf(data.arrays.layer_mass);
    this.partStart = this.startOfParts();
    this.centres = Array.from({ length: this.count }, (_, row) =>
      latlonOfTile(this.x(row) + 0.5, this.y(row) + 0.5, this.zoom));
    /** @type {Map<number, number> | null} by `key` */
    this.rows = null;
  }

  /** @param {number} row */
  x(row) { return this.xy[2 * row]; }

  /** @param {number} row */
  y(row) { return this.xy[2 * row + 1]; }

  /**
   * x on the map: counted on from the map's western edge where the city crosses 180 degrees.
   * @param {number} row
   */
  mapX(row) { return this.onMap(this.x(row)); }

  /**
   * The same for any x.
   * @param {number} x
   */
  onMap(x) { return this.west + modulo(x - this.west, this.columns); }

  /**
   * The tile's name in the page's address and in exports.
   * @param {number} row
   */
  id(row) { return `${this.zoom}/${this.x(row)}/${this.y(row)}`; }

  /**
   * @param {number} x
   * @param {number} y
   */
  key(x, y) { return x * this.columns + y; }

  /**
   * Row of the tile (x, y), -1 when the page has none.
   * @param {number} x
   * @param {number} y
   */
  rowAt(x, y) { return this.rowOfKey(this.key(x, y)); }

  /** @param {number} key */
  rowOfKey(key) {
    this.rows ??= new Map(this.centres.map((_, row) => [this.key(this.x(row), this.y(row)), row]));
    return this.rows.get(key) ?? -1;
  }

  /**
   * The same for an x on the map (see mapX).
   * @param {number} mapX
   * @param {number} y
   */
  rowOnMap(mapX, y) { return this.rowAt(modulo(mapX, this.columns), y); }

  /**
   * The place at tile coordinates of the map.
   * @param {number} mapX
   * @param {number} y
   */
  latlonOnMap(mapX, y) { return latlonOfTile(modulo(mapX, this.columns), y, this.zoom); }

  /** @param {string} id */
  rowOfId(id) {
    const [zoom, x, y] = id.split("/").map(Number);
    return zoom === this.zoom ? this.rowAt(x, y) : -1;
  }

  /**
   * @param {LatLon} a
   * @param {LatLon} b
   */
  kmBetween(a, b) { return this.earthRadiusKm * angleBetween(a, b); }

  /**
   * Kilometres between the centres of two tiles.
   * @param {number} a
   * @param {number} b
   */
  km(a, b) { return this.kmBetween(this.centres[a], this.centres[b]); }

  /**
   * The nearest tile to a place and how many kilometres away it is.
   * @param {number} lat
   * @param {number} lon
   * @returns {[number, number]}
   */
  nearestTo(lat, lon) {
    let best = -1;
    let bestKm = Infinity;
    this.centres.forEach((centre, row) => {
      const km = this.kmBetween(centre, [lat, lon]);
      if (km < bestKm) [best, bestKm] = [row, km];
    });
    return [best, bestKm];
  }

  /**
   * @param {number} row
   * @param {number} layer
   */
  hasLayer(row, layer) { return Boolean((this.layerBits[row] >> layer) & 1); }

  /**
   * Name of the layer that stands out most on a tile.
   * @param {number} row
   */
  mainLayer(row) { return this.layers[this.dominant[row]]?.name ?? this.nothingDrawn; }

  /** The drawn layers of all tiles are numbered one tile after another: where each tile's numbers start. */
  startOfParts() {
    const start = new Uint32Array(this.count + 1);
    for (let row = 0; row < this.count; row++) start[row + 1] = start[row] + bitCount(this.layerBits[row]);
    return start;
  }

  /**
   * Number of a tile's layer among the drawn layers of all tiles, -1 when nothing is drawn on it.
   * @param {number} row
   * @param {number} layer
   */
  part(row, layer) {
    if (!this.hasLayer(row, layer)) return -1;
    return this.partStart[row] + bitCount(this.layerBits[row] & ((1 << layer) - 1));
  }

  /** @param {number} row */
  osmLink(row) {
    const [lat, lon] = this.centres[row].map((degrees) => degrees.toFixed(5));
    return `https://www.openstreetmap.org/?mlat=${lat}&mlon=${lon}#map=${this.zoom}/${lat}/${lon}`;
  }
}
