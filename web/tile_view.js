// What the embedding and the map share: pointing, picking, dragging, box and lasso, marks drawn on top, arrow keys.

import { context2d, element, fitCanvas } from "./dom.js";
import { SPARE_PX } from "./graphics.js";
import { LABEL_FONT, drawLabels, placeLabels } from "./labels.js";
import { isInside } from "./polygon.js";

/** @import { Label } from "./labels.js" */
/** @import { Explorer } from "./explorer.js" */
/** @import { LatLon, Pin, Point, Ring, Tool } from "./types.d.ts" */

const CLICK_SLOP_PX = 5;
const SETTLE_MS = 150; // without a movement, until a dragged view is drawn again
const PIN_PX = 4.5;
const KEY_ZOOM = 1.4;
/** @type {Record<string, Point>} */
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * A subclass keeps `positions` (x, y of each tile in pixels of the view, NaN where it cannot be seen) and `reach` (how
 * many pixels around a tile count as on it) up to date.
 */
export class TileView {
  /**
   * @param {HTMLElement} host
   * @param {Explorer} explorer
   */
  constructor(host, explorer) {
    this.host = host;
    this.explorer = explorer;
    this.overlay = element("canvas", { class: "overlay", "aria-hidden": "true" });
    this.host.append(this.overlay);
    this.width = 0;
    this.height = 0;
    this.fittedSize = "";
    this.positions = new Float32Array(0);
    this.reach = 12;
    /** @type {Tool} */
    this.tool = "pan";
    /** @type {Point[]} */
    this.outline = [];
    /** @type {Point | null} */
    this.downAt = null;
    /** @type {Map<number, Point>} where each finger or the mouse was last while it drags the view */
    this.touches = new Map();
    /** @type {Point} how far the canvases were dragged since they were drawn */
    this.slid = [0, 0];
    this.settling = 0;
    this.locations = 0; // counts changes of `positions`
    /** @type {{key: string, labels: Label[]}} names of categories, kept while nothing moves */
    this.named = { key: "", labels: [] };
    this.moving = false; // dots fly from one projection to the next
    this.blank = true; // nothing was drawn yet
    this.measure();
    this.stops = new AbortController();
    this.resizing = new ResizeObserver(() => this.resized());
    this.listen();
  }

  listen() {
    const options = { signal: this.stops.signal, capture: true };
    this.host.addEventListener("pointermove", (event) => this.onMove(event), options);
    this.host.addEventListener("pointerdown", (event) => this.onDown(event), options);
    this.host.addEventListener("pointercancel", (event) => this.onCancel(event), options);
    this.host.addEventListener("pointerleave", () => this.onLeave(), options);
    this.host.addEventListener("keydown", (event) => this.onKey(event), options);
    this.host.addEventListener("blur", () => this.explorer.hover(-1, this, null), options);
    this.host.addEventListener("wheel", (event) => this.onWheel(event), { signal: this.stops.signal, passive: false });
    window.addEventListener("pointerup", (event) => this.onUp(event), options);
    this.resizing.observe(this.host);
  }

  destroy() {
    this.stops.abort();
    this.resizing.disconnect();
    clearTimeout(this.settling);
  }

  // --- what a subclass does its own way ---

  /**
   * Move the view along with the pointer.
   * @param {number} _dx
   * @param {number} _dy
   * @param {PointerEvent} _event
   */
  moveBy(_dx, _dy, _event) {}

  /**
   * @param {number} _factor
   * @param {Point} [_around]
   */
  zoom(_factor, _around) {}

  /** Show everything. */
  reset() {}

  /**
   * Bring a tile into sight; whether the view had to move.
   * @param {number} _row
   */
  reveal(_row) { return false; }

  /** Find `positions` again and draw, in the next frame. */
  redraw() {}

  /** Fit the drawing to the size of the view. */
  layOut() {}

  /**
   * The place on the ground under a point of the view, if it shows the ground.
   * @param {Point} _point
   * @returns {LatLon | null}
   */
  groundAt(_point) { return null; }

  /**
   * Draw what lies under the marks.
   * @param {CanvasRenderingContext2D} _context
   */
  drawUnder(_context) {}

  // --- pointing and dragging ---

  /** @param {Tool} tool */
  setTool(tool) {
    this.tool = tool;
    this.host.dataset.tool = tool;
    this.outline = [];
    this.drawMarks();
  }

  /**
   * @param {MouseEvent} event
   * @returns {Point}
   */
  at(event) {
    const box = this.host.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  /** @param {PointerEvent} event */
  onMove(event) {
    const point = this.at(event);
    if (this.outline.length) this.extendOutline(point);
    else if (this.touches.has(event.pointerId)) this.drag(event, point);
    else if (!event.buttons) this.explorer.hover(this.rowAt(point), this, point);
  }

  /** @param {PointerEvent} event */
  onDown(event) {
    if (event.button || /** @type {Element} */ (event.target).closest("button, a")) return;
    this.downAt = this.at(event);
    this.host.focus({ preventScroll: true });
    this.host.setPointerCapture(event.pointerId);
    if (this.tool === "pan") {
      this.touches.set(event.pointerId, this.downAt);
    } else {
      event.preventDefault();
      event.stopPropagation();
      this.outline = [this.downAt];
    }
  }

  /**
   * One finger or the mouse moves the view, two fingers zoom it.
   * @param {PointerEvent} event
   * @param {Point} point
   */
  drag(event, point) {
    const before = /** @type {Point} */ (this.touches.get(event.pointerId));
    this.touches.set(event.pointerId, point);
    const other = [...this.touches].find(([id]) => id !== event.pointerId)?.[1];
    if (!other) return this.moveBy(point[0] - before[0], point[1] - before[1], event);
    /** @param {Point} at */
    const spread = (at) => Math.hypot(at[0] - other[0], at[1] - other[1]) || 1;
    this.zoom(spread(point) / spread(before), [(point[0] + other[0]) / 2, (point[1] + other[1]) / 2]);
  }

  /**
   * Let the canvases follow the pointer. The view is drawn again when they rest, or when their edge comes into sight.
   * @param {number} dx
   * @param {number} dy
   */
  slide(dx, dy) {
    const [x, y] = this.slid = [this.slid[0] + dx, this.slid[1] + dy];
    this.host.style.setProperty("--slid", `${x}px ${y}px`);
    clearTimeout(this.settling);
    if (Math.max(Math.abs(x), Math.abs(y)) > SPARE_PX) this.redraw();
    else this.settling = window.setTimeout(() => this.settle(), SETTLE_MS);
  }

  /** Draw a dragged view again. */
  settle() {
    if (this.slid.some(Boolean)) this.redraw();
  }

  /** A subclass calls it when it finds `positions` again. */
  rest() {
    clearTimeout(this.settling);
    this.slid = [0, 0];
    this.host.style.removeProperty("--slid");
  }

  /** @param {PointerEvent} event */
  onUp(event) {
    this.settle();
    if (this.touches.size > 1) this.downAt = null;
    this.touches.delete(event.pointerId);
    if (!this.downAt) return;
    const point = this.at(event);
    const [downX, downY] = this.downAt;
    const outline = this.outline; // a lasso may end where it began
    const still = [...outline, point].every(([x, y]) => Math.hypot(x - downX, y - downY) < CLICK_SLOP_PX);
    this.downAt = null;
    this.outline = [];
    if (still) this.explorer.pick(this.rowAt(point), this.groundAt(point));
    else if (outline.length) {
      this.explorer.hover(-1, this, null);
      this.explorer.select(this.rowsWithin(this.asPolygon(outline)), this.explorer.selectionMode(event));
    }
    this.drawMarks();
  }

  /** @param {PointerEvent} event */
  onCancel(event) {
    this.touches.delete(event.pointerId);
    this.downAt = null;
    this.outline = [];
    this.drawMarks();
  }

  onLeave() {
    if (!this.outline.length) this.explorer.hover(-1, this, null);
  }

  /** @param {WheelEvent} event */
  onWheel(event) {
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0018)), this.at(event));
  }

  /**
   * The tile nearest to a point of the view within `reach`, -1 for none.
   * @param {Point} point
   */
  rowAt(point, reach = this.reach) {
    const [x, y] = [point[0] - this.slid[0], point[1] - this.slid[1]];
    let best = -1;
    let bestSquare = reach ** 2;
    for (let row = 0, at = 0; at < this.positions.length; row++, at += 2) {
      const square = (this.positions[at] - x) ** 2 + (this.positions[at + 1] - y) ** 2;
      if (square < bestSquare) [best, bestSquare] = [row, square];
    }
    return best;
  }

  // --- box and lasso ---

  /** @param {Point} point */
  extendOutline(point) {
    if (this.tool === "lasso") this.outline.push(point);
    else this.outline = [this.outline[0], point];
    this.drawMarks();
  }

  /**
   * @param {Point[]} outline two corners of a box, or a lasso
   * @returns {Point[]}
   */
  asPolygon(outline) {
    if (this.tool === "lasso" || outline.length < 2) return outline;
    const [[left, top], [right, bottom]] = outline;
    return [[left, top], [right, top], [right, bottom], [left, bottom]];
  }

  /** @param {Point[]} polygon */
  rowsWithin(polygon) {
    const rows = [];
    for (let row = 0, at = 0; at < this.positions.length; row++, at += 2) {
      if (isInside(polygon, this.positions[at], this.positions[at + 1])) rows.push(row);
    }
    return rows;
  }

  // --- keys ---

  /** @param {KeyboardEvent} event */
  onKey(event) {
    if (event.target !== this.host || event.ctrlKey || event.metaKey || event.altKey) return;
    const arrow = ARROWS[event.key];
    if (arrow) this.explorer.hoverByKey(this.towards(arrow), this);
    else if (event.key === "Enter" || event.key === " ") this.explorer.pick(this.explorer.hovered, null);
    else if (event.key === "+" || event.key === "=") this.zoom(KEY_ZOOM);
    else if (event.key === "-") this.zoom(1 / KEY_ZOOM);
    else if (event.key === "0") this.reset();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /**
   * The nearest tile in the direction of an arrow key, from the one pointed at.
   * @param {Point} direction
   */
  towards([dx, dy]) {
    const from = this.explorer.hovered >= 0 ? this.explorer.hovered : this.explorer.state.tile;
    const start = this.place(from);
    if (!start) return this.rowAt([this.width / 2, this.height / 2], Infinity);
    let best = from;
    let bestCost = Infinity;
    for (let row = 0; row < this.positions.length / 2; row++) {
      const [right, down] = [this.positions[2 * row] - start[0], this.positions[2 * row + 1] - start[1]];
      const ahead = right * dx + down * dy;
      const aside = Math.abs(right * dy) + Math.abs(down * dx);
      const cost = ahead + 2.5 * aside;
      if (ahead > 0.5 && aside <= ahead * 1.5 && cost < bestCost) [best, bestCost] = [row, cost];
    }
    return best;
  }

  // --- marks on top ---

  /** The size is kept: asking the page for it for every dot takes longer than drawing the dot. */
  measure() {
    [this.width, this.height] = [this.host.clientWidth, this.host.clientHeight];
  }

  resized() {
    this.measure();
    const size = `${this.width}x${this.height}`;
    if (size === this.fittedSize) return;
    this.fittedSize = size;
    fitCanvas(this.overlay, this.width, this.height, SPARE_PX);
    this.layOut();
    this.drawMarks();
  }

  /**
   * Where a tile is in the view, null when it cannot be seen.
   * @param {number} row
   * @returns {Point | null}
   */
  place(row) {
    const [x, y] = [this.positions[2 * row], this.positions[2 * row + 1]];
    return x === undefined || Number.isNaN(x) ? null : [x, y];
  }

  drawMarks() {
    if (this.moving || this.blank) return;
    const context = context2d(this.overlay);
    this.clear(context);
    const { rings, path, pins = [] } = this.explorer.marks();
    this.drawUnder(context);
    drawLabels(context, this.labels(context), this.explorer.ink.text, this.explorer.ink.halo);
    this.drawPath(context, path);
    for (const pin of pins) this.drawPin(context, pin);
    for (const ring of rings) this.drawRing(context, ring);
    this.drawOutline(context);
  }

  /** @param {CanvasRenderingContext2D} context of a canvas of this view */
  clear(context) {
    context.clearRect(-SPARE_PX, -SPARE_PX, this.width + 2 * SPARE_PX, this.height + 2 * SPARE_PX);
  }

  /**
   * Whether something at a point can be seen, now or while the view is dragged.
   * @param {number} x
   * @param {number} y
   * @param {number} reach its size
   */
  nearView(x, y, reach) {
    const beyond = SPARE_PX + reach;
    return x > -beyond && y > -beyond && x < this.width + beyond && y < this.height + beyond;
  }

  /** How often the name of a category may stand on this view; 0: not at all. */
  get labelRepeats() { return 1; }

  /**
   * Names of the categories in sight.
   * @param {CanvasRenderingContext2D} context
   */
  labels(context) {
    const { explorer, width, height } = this;
    const { legend, state } = explorer;
    if (!explorer.labelled) return [];
    if (legend.kind !== "category" || state.labels === "none" || !this.labelRepeats) {
      this.named = { key: "", labels: [] };
      this.host.dataset.labels = "";
      return [];
    }
    const key = [this.locations, explorer.colourRun, this.labelRepeats, width, height].join();
    if (key !== this.named.key) {
      context.font = LABEL_FONT;
      const labels = placeLabels(this, legend.items, legend.values, (row) => !explorer.isGrey(row),
        (text) => context.measureText(text).width, this.labelRepeats);
      this.named = { key, labels };
      this.host.dataset.labels = labels.map(({ lines }) => lines.join(" ")).join("; ");
    }
    return this.named.labels;
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {number[]} path
   */
  drawPath(context, path) {
    const points = path.map((row) => this.place(row)).filter((point) => point !== null);
    if (points.length < 2) return;
    const { halo, accent } = this.explorer.ink;
    for (const [colour, width] of /** @type {[string, number][]} */ ([[halo, 5], [accent, 2]])) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.lineJoin = "round";
      context.beginPath();
      for (const [x, y] of points) context.lineTo(x, y);
      context.stroke();
    }
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {Ring} ring
   */
  drawRing(context, { row, radius, colour, label, width = 2 }) {
    const point = this.place(row);
    if (!point) return;
    const [x, y] = point;
    const around = this.markRadius(radius);
    const strokes = /** @type {[string, number][]} */ ([[this.explorer.ink.halo, width + 2.5], [colour, width]]);
    for (const [stroke, line] of strokes) {
      context.strokeStyle = stroke;
      context.lineWidth = line;
      context.beginPath();
      this.traceMark(context, x, y, around);
      context.stroke();
    }
    if (label) this.drawLabel(context, label, x + around + 3, y - around - 3, colour);
  }

  /**
   * Where a place that is no tile is in the view, null where it cannot be shown.
   * @param {Pin} _pin
   * @returns {Point | null}
   */
  placeOfPin(_pin) { return null; }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {Pin} pin
   */
  drawPin(context, pin) {
    const point = this.placeOfPin(pin);
    if (!point) return;
    const { accent, halo } = this.explorer.ink;
    context.beginPath();
    context.arc(point[0], point[1], PIN_PX, 0, 2 * Math.PI);
    context.fillStyle = accent;
    context.strokeStyle = halo;
    context.lineWidth = 2;
    context.fill();
    context.stroke();
    if (pin.label) this.drawLabel(context, pin.label, point[0] + PIN_PX + 3, point[1] - PIN_PX - 3, accent);
  }

  /** @param {number} radius */
  markRadius(radius) { return radius; }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {number} x
   * @param {number} y
   * @param {number} radius
   */
  traceMark(context, x, y, radius) {
    context.arc(x, y, radius, 0, 2 * Math.PI);
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {string} label
   * @param {number} x
   * @param {number} y
   * @param {string} colour
   */
  drawLabel(context, label, x, y, colour) {
    context.font = "600 11px system-ui, sans-serif";
    const width = Math.max(16, context.measureText(label).width + 8);
    context.fillStyle = colour;
    context.beginPath();
    context.roundRect(x - 4, y - 8, width, 16, 8);
    context.fill();
    context.fillStyle = this.explorer.ink.onAccent;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText(label, x - 4 + width / 2, y + 0.5);
  }

  /** @param {CanvasRenderingContext2D} context */
  drawOutline(context) {
    if (this.outline.length < 2) return;
    context.strokeStyle = this.explorer.ink.accent;
    context.fillStyle = this.explorer.ink.wash;
    context.lineWidth = 1.5;
    context.setLineDash([5, 4]);
    context.beginPath();
    for (const [x, y] of this.asPolygon(this.outline)) context.lineTo(x, y);
    context.closePath();
    context.fill();
    context.stroke();
    context.setLineDash([]);
  }
}
