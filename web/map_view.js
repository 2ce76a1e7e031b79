// The city map: a picture made of the tiles themselves, with a coloured square on every tile of the page.

import { rgbOf } from "./colour.js";
import { context2d, copyCanvas, element, fitCanvas } from "./dom.js";
import { dotsAbove } from "./dots.js";
import { SPARE_PX } from "./graphics.js";
import { TileView } from "./tile_view.js";

/** @import { Explorer } from "./explorer.js" */
/** @import { LatLon, PageData, Pin, Point } from "./types.d.ts" */

const TILE_ALPHA = 0.62;
const GREY_ALPHA = 0.5;
const NIGHT_ALPHA = 0.78; // in the dark theme the light map is dimmed
const SPRITES_FROM_PX = 26; // a tile this wide on the screen shows its own picture instead of the map's
const GAP_FROM_PX = 14; // smaller squares touch each other
const FEW_SHARE = 0.5; // a page with fewer of the city's tiles draws larger squares
const SHOW_MARGIN_PX = 24;
const LARGEST_TILE_PX = 256;

export class MapView extends TileView {
  /**
   * @param {HTMLElement} host
   * @param {Explorer} explorer
   * @param {PageData} data
   */
  constructor(host, explorer, data) {
    super(host, explorer);
    this.canvas = element("canvas", { class: "ground", "aria-hidden": "true" });
    host.prepend(this.canvas);
    this.dots = dotsAbove(this.canvas, () => this.draw());
    if (!this.dots.isLayer) this.canvas.remove(); // it is copied below the marks
    this.painted = ""; // what the dots were painted for
    this.tiles = explorer.tiles;
    this.base = new Image();
    this.base.onload = () => this.draw();
    if (data.map.image) this.base.src = data.map.image;
    const { origin: [x, y], width, height, px_per_tile: px } = data.map;
    this.extent = { x, y, width: width / px, height: height / px }; // in tiles
    this.sparse = this.tiles.count < FEW_SHARE * data.map.tiles;
    this.middles = new Float64Array(this.tiles.count); // of the tiles, from left to right
    for (let row = 0; row < this.tiles.count; row++) this.middles[row] = this.tiles.mapX(row) + 0.5;
    this.positions = new Float32Array(2 * this.tiles.count);
    this.scale = 1; // pixels per tile
    this.left = x; // tile coordinates of the view's upper left corner
    this.top = y;
    this.side = 1;
    this.showsAll = true;
    this.frame = 0;
    this.reset();
  }

  destroy() {
    super.destroy();
    cancelAnimationFrame(this.frame);
    this.dots.destroy();
  }

  // --- where things are ---

  reset() {
    const { x, y, width, height } = this.extent;
    this.scale = Math.min(this.width / width, this.height / height) * 0.98 || 1;
    this.left = x + width / 2 - this.width / 2 / this.scale;
    this.top = y + height / 2 - this.height / 2 / this.scale;
    this.showsAll = true;
    this.redraw();
  }

  layOut() {
    fitCanvas(this.canvas, this.width, this.height, SPARE_PX);
    this.dots.fit(this.width, this.height);
    if (this.showsAll) this.reset();
    else this.redraw();
    if (!this.blank) this.drawGround(); // now: a map of another size is empty until it is drawn
  }

  redraw() {
    this.rest();
    for (let row = 0; row < this.tiles.count; row++) {
      this.positions[2 * row] = (this.middles[row] - this.left) * this.scale;
      this.positions[2 * row + 1] = (this.tiles.y(row) + 0.5 - this.top) * this.scale;
    }
    this.locations++;
    this.side = Math.max(this.scale, this.sparse ? 7 : 1.5);
    this.reach = Math.max(this.sparse ? 14 : 9, this.side * 0.75);
    this.draw();
    this.explorer.mapMoved();
  }

  /**
   * @param {number} dx
   * @param {number} dy
   */
  moveBy(dx, dy) {
    this.left -= dx / this.scale;
    this.top -= dy / this.scale;
    this.showsAll = false;
    this.slide(dx, dy);
  }

  /**
   * @param {number} factor
   * @param {Point} around
   */
  zoom(factor, [x, y] = [this.width / 2, this.height / 2]) {
    const fit = Math.min(this.width / this.extent.width, this.height / this.extent.height);
    const scale = Math.min(LARGEST_TILE_PX, Math.max(fit * 0.6, this.scale * factor));
    this.left += x / this.scale - x / scale;
    this.top += y / this.scale - y / scale;
    this.scale = scale;
    this.showsAll = false;
    this.redraw();
  }

  /** Where the map is, for `showGround` of another one. */
  ground() {
    const { left, top, scale, showsAll } = this;
    return { left, top, scale, showsAll };
  }

  /** @param {{left: number, top: number, scale: number, showsAll: boolean}} ground */
  showGround(ground) {
    if (ground.showsAll) return;
    Object.assign(this, ground);
    this.redraw();
  }

  /** @param {number} row */
  reveal(row) {
    const [x, y] = [this.positions[2 * row], this.positions[2 * row + 1]];
    const margin = SHOW_MARGIN_PX;
    if (!this.width) return false; // hidden: it shows everything when it comes into sight
    if (x > margin && y > margin && x < this.width - margin && y < this.height - margin) return false;
    this.left = this.middles[row] - this.width / 2 / this.scale;
    this.top = this.tiles.y(row) + 0.5 - this.height / 2 / this.scale;
    this.showsAll = false;
    this.redraw();
    return true;
  }

  /**
   * Tile coordinates of a point of the view.
   * @param {Point} point
   * @returns {Point}
   */
  tileAt([x, y]) { return [this.left + x / this.scale, this.top + y / this.scale]; }

  /**
   * @param {Point} point
   * @returns {LatLon}
   */
  groundAt(point) {
    const [x, y] = this.tileAt(point);
    return this.tiles.latlonOnMap(x, y);
  }

  /** @param {Point} point */
  rowAt(point, reach = this.reach) {
    const [x, y] = this.tileAt(point).map(Math.floor);
    const exact = this.tiles.rowOnMap(x, y);
    return exact >= 0 ? exact : super.rowAt(point, reach);
  }

  /** Tiles that are large on the screen are looked at one by one. */
  get labelRepeats() { return this.scale >= 2 * SPRITES_FROM_PX || this.explorer.state.map === "plain" ? 0 : 3; }

  // --- drawing ---

  /** Draw everything, once in the next frame. */
  draw() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.drawGround();
      this.drawMarks();
    });
  }

  drawGround() {
    this.blank = false;
    const context = context2d(this.canvas);
    this.clear(context);
    context.globalAlpha = this.explorer.dark ? NIGHT_ALPHA : 1;
    this.drawBase(context);
    if (this.scale >= SPRITES_FROM_PX) this.drawSprites(context);
    context.globalAlpha = 1;
    this.drawTiles(context);
  }

  /** @param {CanvasRenderingContext2D} context */
  drawUnder(context) {
    if (!this.dots.isLayer) copyCanvas(context, this.canvas);
  }

  /** @param {CanvasRenderingContext2D} context */
  drawBase(context) {
    if (!this.base.naturalWidth) return;
    const { x, y, width, height } = this.extent;
    context.imageSmoothingQuality = "high";
    const left = (x - this.left) * this.scale;
    const top = (y - this.top) * this.scale;
    context.drawImage(this.base, left, top, width * this.scale, height * this.scale);
  }

  /** @param {number} row */
  inSight(row) {
    return this.nearView(this.positions[2 * row], this.positions[2 * row + 1], this.side);
  }

  /** @param {CanvasRenderingContext2D} context */
  drawSprites(context) {
    for (let row = 0; row < this.tiles.count; row++) {
      if (!this.inSight(row)) continue;
      const [x, y] = [this.positions[2 * row] - this.scale / 2, this.positions[2 * row + 1] - this.scale / 2];
      this.explorer.pictures.draw(context, row, x, y, this.scale + 0.5);
    }
  }

  /**
   * A square on every tile; hollow where the tile is large enough to look at.
   * @param {CanvasRenderingContext2D} context
   */
  drawTiles(context) {
    const { css, ink, state } = this.explorer;
    const hollow = this.scale >= 2 * SPRITES_FROM_PX;
    const gap = this.side > GAP_FROM_PX ? 1 : 0; // a whole pixel: a part of one would show between some squares only
    const side = this.sparse ? Math.max(this.side * 0.92, 7) : Math.max(this.side - gap, 1.5);
    const plain = state.map === "plain"; // only the selection is coloured
    const opacity = this.sparse ? 0.9 : TILE_ALPHA;
    const nothing = plain && !state.selection.size;
    if (hollow || nothing) this.dots.clear();
    if (nothing) return;
    if (!hollow) {
      this.paintDots(opacity, plain);
      this.dots.draw(this.positions, { size: side, round: false });
      if (!this.dots.isLayer) copyCanvas(context, this.dots.canvas);
      return;
    }
    context.lineWidth = Math.max(2, this.scale * 0.05);
    for (let row = 0; row < this.tiles.count; row++) {
      const grey = this.explorer.isGrey(row);
      if (!this.inSight(row) || (plain && grey)) continue;
      const [x, y] = [this.positions[2 * row] - side / 2, this.positions[2 * row + 1] - side / 2];
      context.globalAlpha = grey ? GREY_ALPHA : opacity;
      context.strokeStyle = grey ? ink.greyTile : css[row];
      context.strokeRect(x + 2, y + 2, side - 4, side - 4);
    }
    context.globalAlpha = 1;
  }

  /**
   * Colour the squares, when something has changed.
   * @param {number} opacity
   * @param {boolean} plain whether only the selection is coloured
   */
  paintDots(opacity, plain) {
    const { explorer } = this;
    const wanted = `${explorer.colourRun} ${plain}`;
    if (wanted === this.painted) return;
    this.painted = wanted;
    const order = Uint32Array.from({ length: this.tiles.count }, (_, row) => row);
    this.dots.paint(plain ? order.filter((row) => !explorer.isGrey(row)) : order,
      explorer.rgba(opacity, [...rgbOf(explorer.ink.greyTile), GREY_ALPHA]));
  }

  /** The view as a picture. */
  image() {
    const picture = element("canvas");
    fitCanvas(picture, this.width, this.height);
    const context = context2d(picture);
    if (this.dots.isLayer) {
      this.drawGround(); // what WebGL drew before is gone
      copyCanvas(context, this.canvas);
      copyCanvas(context, this.dots.canvas);
    }
    copyCanvas(context, this.overlay);
    return picture;
  }

  /**
   * @param {Pin} pin
   * @returns {Point}
   */
  placeOfPin({ tile: [x, y] }) {
    return [(this.tiles.onMap(x) - this.left) * this.scale, (y - this.top) * this.scale];
  }

  /** @param {number} radius */
  markRadius(radius) {
    return Math.max(radius * 0.7, this.side / 2 + 1);
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {number} x
   * @param {number} y
   * @param {number} radius
   */
  traceMark(context, x, y, radius) {
    context.roundRect(x - radius, y - radius, 2 * radius, 2 * radius, 3);
  }
}
