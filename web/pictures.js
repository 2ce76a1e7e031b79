// Pictures of tiles out of sprite sheets; the large picture is painted from the tile's layers as Python paints it.

const MISSING_COLOUR = "#bebebe";

// Square cells in WebP sheets, decoded only when they are first needed.
class Sheets {
  constructor(spec, onLoad) {
    this.spec = spec;
    this.onLoad = onLoad;
    this.images = [];
  }

  // The sheet a cell lies on: {image, state: "loading" | "ready" | "damaged", done: Promise}.
  sheet(cell) {
    const number = Math.floor(cell / this.spec.per_sheet);
    return (this.images[number] ??= this.load(this.spec.sheets[number]));
  }

  load(source) {
    const sheet = { image: new Image(), state: "loading" };
    sheet.done = new Promise((resolve) => {
      const settle = (state) => () => {
        sheet.state = state;
        resolve();
        this.onLoad();
      };
      sheet.image.onload = settle("ready");
      sheet.image.onerror = settle("damaged");
    });
    if (source) sheet.image.src = source;
    else sheet.image.onerror();
    return sheet;
  }

  // Draw a cell; a grey square stands for one that cannot be read, or not yet.
  draw(context, cell, x, y, width, height = width) {
    const { state, image } = cell < 0 ? { state: "damaged" } : this.sheet(cell);
    if (state === "ready") {
      const [left, top] = this.corner(cell);
      const { size } = this.spec;
      context.drawImage(image, left, top, size, size, x, y, width, height);
      return true;
    }
    context.fillStyle = MISSING_COLOUR;
    context.fillRect(x, y, width, height);
    if (state === "damaged") drawDamage(context, x, y, width, height);
    return false;
  }

  corner(cell) {
    const { size, columns, per_sheet: perSheet } = this.spec;
    const place = cell % perSheet;
    return [(place % columns) * size, Math.floor(place / columns) * size];
  }
}

function drawDamage(context, x, y, width, height) {
  context.strokeStyle = "#a6a6a6";
  context.lineWidth = Math.max(1, width / 24);
  context.beginPath();
  context.moveTo(x, y + height);
  context.lineTo(x + width, y);
  context.stroke();
}

class Pictures {
  constructor(data, tiles, onLoad) {
    this.tiles = tiles;
    this.sprites = data.sprites && new Sheets(data.sprites, onLoad);
    this.planes = data.planes && new Sheets(data.planes, onLoad);
    this.cellOfPart = data.planes && arrayOf(data.planes.cell_of_part);
    this.paint = data.paint && paintTables(data.paint, data.layers);
    this.damaged = new Set((data.damaged || []).map((id) => tiles.rowOfId(id)));
  }

  // The small composite of a tile, or its most representative layer.
  draw(context, row, x, y, size, style = "composite") {
    if (style === "layer" && this.planes && !this.damaged.has(row)) {
      const picture = this.layerPicture(row, this.tiles.dominant[row]);
      if (picture) return context.drawImage(picture, x, y, size, size);
    }
    return this.sprites?.draw(context, this.damaged.has(row) ? -1 : row, x, y, size);
  }

  // The brightness of one layer as S * S bytes; null when its sheet is not decoded yet or is damaged.
  plane(row, layer) {
    const part = this.tiles.part(row, layer);
    const { size } = this.planes.spec;
    if (part < 0) return new Uint8Array(size * size);
    const cell = this.cellOfPart[part];
    const { state, image } = this.planes.sheet(cell);
    if (state !== "ready") return null;
    const context = scratch(size);
    context.drawImage(image, ...this.planes.corner(cell), size, size, 0, 0, size, size);
    const pixels = context.getImageData(0, 0, size, size).data;
    return Uint8Array.from({ length: size * size }, (_, i) => pixels[4 * i]);
  }

  layerPicture(row, layer) {
    const mask = layer < 0 ? null : this.plane(row, layer);
    if (!mask) return null;
    const { size } = this.planes.spec;
    const colour = rgbOf(this.tiles.layers[layer].colour);
    const context = scratch(size);
    const picture = context.createImageData(size, size);
    mask.forEach((level, i) => {
      const strength = Math.sqrt(level / 255);
      for (let c = 0; c < 3; c++) picture.data[4 * i + c] = mix(this.paint.ground[c], colour[c], strength);
      picture.data[4 * i + 3] = 255;
    });
    context.putImageData(picture, 0, 0);
    return context.canvas;
  }

  // Wait until every layer of the tile is decoded.
  async layersReady(row) {
    const drawn = this.tiles.layers.map((_, layer) => this.tiles.part(row, layer)).filter((part) => part >= 0);
    await Promise.all(drawn.map((part) => this.planes.sheet(this.cellOfPart[part]).done));
  }

  // Lay the coats of paint of the layers in `enabled` (a bit each) over the ground: tile_images.composite, here.
  compose(row, enabled) {
    const { size } = this.planes.spec;
    const pixels = new Float32Array(size * size * 3);
    for (let i = 0; i < pixels.length; i++) pixels[i] = this.paint.ground[i % 3];
    for (const coat of this.paint.coats) {
      if (!((enabled >> coat.layer) & 1) || !this.tiles.hasLayer(row, coat.layer)) continue;
      const mask = this.plane(row, coat.layer);
      if (mask) layCoat(pixels, coat.grown ? grown(mask, size) : mask, coat);
    }
    const picture = new ImageData(size, size);
    for (let i = 0; i < size * size; i++) {
      picture.data.set([pixels[3 * i] + 0.5, pixels[3 * i + 1] + 0.5, pixels[3 * i + 2] + 0.5, 255], 4 * i);
    }
    return picture;
  }
}

function scratch(size) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size;
  return canvas.getContext("2d", { willReadFrequently: true });
}

function layCoat(pixels, mask, { colours, opacity }) {
  mask.forEach((level, i) => {
    if (!level) return;
    for (let c = 0; c < 3; c++) pixels[3 * i + c] += (colours[level][c] - pixels[3 * i + c]) * opacity[level];
  });
}

// The mask with every pixel spread to its four neighbours: the casing of roads.
function grown(mask, size) {
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

// Colour and opacity for each of 256 levels of brightness, from the stops that Python sends.
function paintTables(paint, layers) {
  const names = layers.map((layer) => layer.name);
  const coats = paint.coats.map(({ layer, stops, grown: isGrown }) => {
    const all = [[0, stops[0][1], 0], ...stops];
    const colours = [];
    const opacity = [];
    for (let level = 0; level < 256; level++) {
      const [from, to, share] = between(all, level);
      const [a, b] = [rgbOf(from[1]), rgbOf(to[1])];
      colours.push(a.map((part, c) => mix(part, b[c], share)));
      opacity.push(mix(from[2], to[2], share));
    }
    return { layer: names.indexOf(layer), grown: isGrown, colours, opacity };
  });
  return { ground: paint.ground, coats };
}

function between(stops, level) {
  const next = stops.findIndex((stop) => stop[0] >= level);
  if (next < 0) return [stops.at(-1), stops.at(-1), 0];
  if (next === 0) return [stops[0], stops[0], 0];
  const [from, to] = [stops[next - 1], stops[next]];
  return [from, to, (level - from[0]) / (to[0] - from[0])];
}
