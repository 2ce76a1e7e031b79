// What a tile's colour says: the ways to colour, and the legend with its counts.

const COLOURINGS = [
  ["layer", "Dominant layer"],
  ["zone", "Geographic zone"],
  ["density", "Content density"],
  ["cluster", "Cluster"],
  ["similarity", "Similarity to the picked tile"],
  ["principal", "First three components (RGB)"],
];
const RAMP_BINS = 24;

function rgbOf(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

function mix(from, to, share) {
  return from + (to - from) * share;
}

// A colour light enough to be seen on a dark ground, or dark enough on a light one.
function readable(rgb, dark) {
  const light = (0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2]) / 255;
  if (dark && light < 0.3) return rgb.map((part) => Math.round(mix(part, 255, 0.3 + (0.3 - light))));
  if (!dark && light > 0.86) return rgb.map((part) => Math.round(part * 0.82));
  return rgb;
}

function rampColour(ramp, share) {
  const at = Math.min(1, Math.max(0, share)) * (ramp.length - 1);
  const low = Math.min(ramp.length - 2, Math.floor(at));
  return ramp[low].map((part, c) => Math.round(mix(part, ramp[low + 1][c], at - low)));
}

// The colours (3 bytes a tile) as CSS knows them; equal ones share one string.
function cssColours(colours) {
  const names = new Map();
  return Array.from({ length: colours.length / 3 }, (_, row) => {
    const [red, green, blue] = colours.subarray(3 * row, 3 * row + 3);
    const value = (red << 16) | (green << 8) | blue;
    if (!names.has(value)) names.set(value, `#${value.toString(16).padStart(6, "0")}`);
    return names.get(value);
  });
}

function quantile(values, share) {
  const sorted = Float32Array.from(values).sort();
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
}

// {colours: 3 bytes a tile, legend}; the legend is {kind: "categories", items}, {kind: "ramp", ...} or {kind: "rgb"}.
class Colouring {
  constructor(data, tiles) {
    this.tiles = tiles;
    this.blank = rgbOf(data.blank_colour);
    this.categories = {
      layer: [tiles.layers, tiles.dominant, "Nothing drawn"],
      zone: [tiles.zones, tiles.zone, "No zone"],
      cluster: [data.clusters, tiles.cluster, "Nothing drawn"],
    };
    this.ramp = data.ramp.map(rgbOf);
  }

  of(kind, dark, similarities) {
    if (kind === "principal") return { colours: this.tiles.principal, legend: { kind: "rgb" } };
    if (kind === "density") {
      const values = Float32Array.from(this.tiles.density, (value) => value / 255);
      const high = Math.max(0.01, quantile(values, 0.99));
      return this.ramped(values, 0, high, ["0 %", `${Math.round(high * 100)} %`], "how full the layers are, on average");
    }
    if (kind === "similarity") return this.bySimilarity(similarities);
    return this.categorical(kind, dark);
  }

  categorical(kind, dark) {
    const [names, index, blankName] = this.categories[kind];
    const palette = names.map((entry) => readable(rgbOf(entry.colour), dark));
    const blank = readable(this.blank, dark);
    const counts = new Array(names.length + 1).fill(0);
    const colours = new Uint8Array(3 * this.tiles.count);
    index.forEach((category, row) => {
      counts[category < 0 ? names.length : category]++;
      colours.set(category < 0 ? blank : palette[category], 3 * row);
    });
    const items = [...names, { name: blankName }].map((entry, category) => ({
      name: entry.name,
      colour: palette[category] ?? blank,
      count: counts[category],
      category: category < names.length ? category : -1,
    }));
    const shown = items.filter((item) => item.count);
    if (kind !== "zone") shown.sort((a, b) => b.count - a.count);
    return { colours, legend: { kind: "categories", items: shown, index } };
  }

  bySimilarity(similarities) {
    if (!similarities) {
      const colours = new Uint8Array(3 * this.tiles.count);
      for (let row = 0; row < this.tiles.count; row++) colours.set(this.blank, 3 * row);
      return { colours, legend: { kind: "hint", text: "Pick a tile to see how alike every other one is." } };
    }
    const low = quantile(similarities, 0.02);
    const label = low.toFixed(low > 0.98 ? 4 : 2);
    return this.ramped(similarities, low, 1, [label, "1"], "cosine similarity to the picked tile");
  }

  ramped(values, low, high, labels, caption) {
    const colours = new Uint8Array(3 * this.tiles.count);
    const bins = new Array(RAMP_BINS).fill(0);
    values.forEach((value, row) => {
      const share = Math.min(1, Math.max(0, (value - low) / (high - low || 1)));
      colours.set(rampColour(this.ramp, share), 3 * row);
      bins[Math.min(RAMP_BINS - 1, Math.floor(share * RAMP_BINS))]++;
    });
    return { colours, legend: { kind: "ramp", ramp: this.ramp, bins, labels, caption } };
  }
}
