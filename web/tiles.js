// Data from Python: base64 arrays become typed arrays; tiles get places on the ground.

const ARRAY_TYPES = {
  int8: Int8Array, uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array,
  int32: Int32Array, uint32: Uint32Array, float32: Float32Array,
};
const EARTH_RADIUS_KM = 6371.0088;

function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

// {dtype, shape, data: base64} as a flat typed array; undefined where Python left the array out.
function arrayOf(entry) {
  return entry && new ARRAY_TYPES[entry.dtype](bytesOf(entry.data).buffer);
}

function latlonOfTile(x, y, zoom) {
  const scale = 2 ** zoom;
  const lat = Math.atan(Math.sinh(Math.PI * (1 - (2 * y) / scale))) * (180 / Math.PI);
  return [lat, (x / scale) * 360 - 180];
}

function tileOfLatlon(lat, lon, zoom) {
  const scale = 2 ** zoom;
  const y = ((1 - Math.asinh(Math.tan((lat * Math.PI) / 180)) / Math.PI) / 2) * scale;
  return [((lon + 180) / 360) * scale, y];
}

function kilometres([latA, lonA], [latB, lonB]) {
  const radians = Math.PI / 180;
  const across = Math.sin(((lonB - lonA) * radians) / 2) ** 2;
  const along = Math.sin(((latB - latA) * radians) / 2) ** 2;
  const chord = along + Math.cos(latA * radians) * Math.cos(latB * radians) * across;
  return 2 * EARTH_RADIUS_KM * Math.asin(Math.min(1, Math.sqrt(chord)));
}

function bitCount(bits) {
  let count = 0;
  for (; bits; bits &= bits - 1) count++;
  return count;
}

// The tiles of the page by row, and everything that is known of each.
class Tiles {
  constructor(data) {
    const arrays = data.arrays;
    this.zoom = data.zoom;
    this.count = data.count;
    this.layers = data.layers;
    this.zones = data.zones;
    this.xy = arrayOf(arrays.tile_xy);
    this.dominant = arrayOf(arrays.dominant_layer);
    this.zone = arrayOf(arrays.zone);
    this.cluster = arrayOf(arrays.cluster);
    this.density = arrayOf(arrays.density);
    this.principal = arrayOf(arrays.principal_colours);
    this.layerBits = arrayOf(arrays.layer_bits);
    this.layerMass = arrayOf(arrays.layer_mass);
    this.partStart = this.startOfParts();
    this.centres = Array.from({ length: this.count }, (_, row) =>
      latlonOfTile(this.x(row) + 0.5, this.y(row) + 0.5, this.zoom));
    this.rows = new Map(this.centres.map((_, row) => [this.key(this.x(row), this.y(row)), row]));
  }

  x(row) { return this.xy[2 * row]; }
  y(row) { return this.xy[2 * row + 1]; }
  id(row) { return `${this.zoom}/${this.x(row)}/${this.y(row)}`; }
  key(x, y) { return x * 2 ** this.zoom + y; }
  rowAt(x, y) { return this.rows.get(this.key(x, y)) ?? -1; }
  hasLayer(row, layer) { return (this.layerBits[row] >> layer) & 1; }
  km(a, b) { return kilometres(this.centres[a], this.centres[b]); }

  rowOfId(id) {
    const [zoom, x, y] = id.split("/").map(Number);
    return zoom === this.zoom ? this.rowAt(x, y) : -1;
  }

  // Drawn layers of all tiles stand one after another: where each tile's begin.
  startOfParts() {
    const start = new Uint32Array(this.count + 1);
    for (let row = 0; row < this.count; row++) start[row + 1] = start[row] + bitCount(this.layerBits[row]);
    return start;
  }

  // Number of a tile's layer among the drawn layers of all tiles, -1 when nothing is drawn on it.
  part(row, layer) {
    if (!this.hasLayer(row, layer)) return -1;
    return this.partStart[row] + bitCount(this.layerBits[row] & ((1 << layer) - 1));
  }

  nearestTo(lat, lon) {
    let best = -1;
    let bestKm = Infinity;
    this.centres.forEach((centre, row) => {
      const km = kilometres(centre, [lat, lon]);
      if (km < bestKm) [best, bestKm] = [row, km];
    });
    return [best, bestKm];
  }

  osmLink(row) {
    const [lat, lon] = this.centres[row].map((degrees) => degrees.toFixed(5));
    return `https://www.openstreetmap.org/?mlat=${lat}&mlon=${lon}#map=${this.zoom}/${lat}/${lon}`;
  }

  facts(row) {
    const layer = this.dominant[row];
    return {
      id: this.id(row),
      layer: layer < 0 ? "nothing drawn" : this.layers[layer].name,
      zone: this.zones[this.zone[row]]?.name ?? "",
      density: this.density[row] / 255,
    };
  }
}
