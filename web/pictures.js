// Pictures of tiles: small ones out of sprite sheets, the large one painted from the tile's layers.

import { arrayOf } from "./arrays.js";
import { context2d, element, pixelRatio } from "./dom.js";
import { Paint } from "./paint.js";
import { Sheets } from "./sheets.js";

/** @import { NumberArray, PageData, State } from "./types.d.ts" */
/** @import { Tiles } from "./tiles.js" */
/** @typedef {{sheets: Sheets, cellOfPart: NumberArray}} Planes the drawn layers of the tiles as grey masks */

const MOST_KEPT = 2_000; // pictures of main layers

export class Pictures {
  /**
   * @param {PageData} data
   * @param {Tiles} tiles
   * @param {() => void} onLoad called whenever more pictures can be drawn
   */
  constructor(data, tiles, onLoad) {
    this.tiles = tiles;
    this.colours = { missing: data.missing_colour, line: data.missing_line_colour };
    this.sprites = new Sheets(data.sprites, this.colours, onLoad);
    /** @type {Planes | null} */
    this.planes = data.planes
      ? { sheets: new Sheets(data.planes, this.colours, onLoad), cellOfPart: arrayOf(data.planes.cell_of_part) } : null;
    this.paint = new Paint(data.paint);
    /** @type {Map<number, HTMLCanvasElement>} by row; a view draws them again with each movement of the pointer */
    this.mainLayers = new Map();
    this.damaged = new Set((data.damaged ?? []).map((id) => tiles.rowOfId(id)));
    /** @type {Map<HTMLCanvasElement, () => boolean>} */
    this.waiting = new Map();
  }

  /**
   * Draw a tile: its composite, or its main layer. Returns whether the picture was there.
   * @param {CanvasRenderingContext2D} context
   * @param {number} row
   * @param {number} x
   * @param {number} y
   * @param {number} side
   * @param {State["preview"]} style
   */
  draw(context, row, x, y, side, style = "composite") {
    const single = style === "layer" && !this.damaged.has(row) ? this.mainLayer(row) : null;
    if (!single) return this.sprites.draw(context, this.damaged.has(row) ? -1 : row, x, y, side);
    context.drawImage(single, x, y, side, side);
    return true;
  }

  /**
   * A canvas that shows a tile as soon as its picture is decoded.
   * @param {number} row
   * @param {number} side in pixels of the page
   * @param {State["preview"]} style
   */
  canvas(row, side, style) {
    const edge = side * pixelRatio();
    const canvas = element("canvas", { width: edge, height: edge, "aria-hidden": "true" });
    canvas.style.width = canvas.style.height = `${side}px`;
    const context = context2d(canvas);
    context.imageSmoothingQuality = "high";
    const draw = () => this.draw(context, row, 0, 0, edge, style);
    if (!draw()) this.waiting.set(canvas, draw);
    return canvas;
  }

  /** Draw what could not be drawn before: more pictures are decoded. */
  drawWaiting() {
    for (const [canvas, draw] of this.waiting) {
      if (draw() || !canvas.isConnected) this.waiting.delete(canvas);
    }
  }

  // --- from the layers ---

  /**
   * Brightness of one layer as size * size bytes; null while its sheet is not decoded.
   * @param {Planes} planes
   * @param {number} row
   * @param {number} layer
   */
  levels({ sheets, cellOfPart }, row, layer) {
    const part = this.tiles.part(row, layer);
    const { size } = sheets.spec;
    if (part < 0) return new Uint8Array(size * size);
    const { state, image } = sheets.sheet(cellOfPart[part]);
    if (state !== "ready") return null;
    const context = context2d(element("canvas", { width: size, height: size }), { willReadFrequently: true });
    context.drawImage(image, ...sheets.corner(cellOfPart[part]), size, size, 0, 0, size, size);
    const pixels = context.getImageData(0, 0, size, size).data;
    return Uint8Array.from({ length: size * size }, (_, i) => pixels[4 * i]);
  }

  /** @param {number} row */
  mainLayer(row) {
    const known = this.mainLayers.get(row);
    if (known) return known;
    const layer = this.tiles.dominant[row];
    const levels = this.planes && layer >= 0 ? this.levels(this.planes, row, layer) : null;
    if (!this.planes || !levels) return null;
    const { size } = this.planes.sheets.spec;
    const canvas = element("canvas", { width: size, height: size });
    context2d(canvas).putImageData(this.paint.single(size, layer, levels), 0, 0);
    if (this.mainLayers.size >= MOST_KEPT) this.mainLayers.clear();
    this.mainLayers.set(row, canvas);
    return canvas;
  }

  /**
   * The tile painted from the layers in `enabled` (a bit each), as soon as all of them are decoded.
   * @param {Planes} planes
   * @param {number} row
   * @param {number} enabled
   */
  async compose(planes, row, enabled) {
    const parts = this.tiles.layers.map((_, layer) => this.tiles.part(row, layer)).filter((part) => part >= 0);
    await Promise.all(parts.map((part) => planes.sheets.sheet(planes.cellOfPart[part]).done));
    return this.paint.compose(planes.sheets.spec.size, (layer) =>
      (enabled >> layer) & 1 && this.tiles.hasLayer(row, layer) ? this.levels(planes, row, layer) : null);
  }
}
