// What the embedding and the map share: pointing, picking, box and lasso, marks drawn on top, arrow keys.

const CLICK_SLOP_PX = 5;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

// A subclass sets `positions` (x, y in CSS pixels of each tile, NaN when out of sight) and `reach` (pixels round a
// tile that count as on it).
class Pane {
  constructor(host, view) {
    this.host = host;
    this.view = view; // callbacks and shared state: see explorer.js
    this.overlay = element("canvas", { class: "overlay", "aria-hidden": "true" });
    this.host.append(this.overlay);
    this.measure();
    this.positions = new Float32Array(0);
    this.reach = 12;
    this.tool = "pan";
    this.outline = [];
    this.stops = new AbortController();
    this.listen();
  }

  listen() {
    const options = { signal: this.stops.signal, capture: true };
    const on = (name, handler) => this.host.addEventListener(name, handler.bind(this), options);
    on("pointermove", this.onMove);
    on("pointerdown", this.onDown);
    on("pointercancel", this.onCancel);
    on("pointerleave", this.onLeave);
    on("keydown", this.onKey);
    window.addEventListener("pointerup", this.onUp.bind(this), options); // Plotly lays a cover over the page while dragging
    this.resizing = new ResizeObserver(() => this.resized());
    this.resizing.observe(this.host);
  }

  destroy() {
    this.stops.abort();
    this.resizing.disconnect();
  }

  setTool(tool) {
    this.tool = tool;
    this.host.dataset.tool = tool;
    this.outline = [];
    this.drawMarks();
  }

  at(event) {
    const box = this.host.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  // --- pointing ---

  onMove(event) {
    const point = this.at(event);
    if (this.outline.length) return this.extendOutline(point);
    if (event.buttons && event.pointerType !== "touch") return this.dragged(event, point);
    if (this.tool === "pan" && event.buttons) return this.dragged(event, point);
    this.view.hover(this.rowAt(point), this, point);
  }

  dragged() {}

  onDown(event) {
    if (event.button || event.target.closest("button, a")) return;
    this.downAt = this.at(event);
    this.host.focus({ preventScroll: true, focusVisible: false });
    if (this.tool === "pan") return;
    event.preventDefault();
    event.stopPropagation();
    this.host.setPointerCapture(event.pointerId);
    this.outline = [this.downAt];
  }

  onUp(event) {
    if (!this.downAt) return;
    const point = this.at(event);
    const still = Math.hypot(point[0] - this.downAt[0], point[1] - this.downAt[1]) < CLICK_SLOP_PX;
    this.downAt = null;
    const outline = this.outline;
    this.outline = [];
    if (still) this.view.pick(this.rowAt(point), this.groundAt(point));
    else if (outline.length) this.finishOutline(outline, event.shiftKey);
    this.drawMarks();
  }

  finishOutline(outline, add) {
    this.view.hover(-1, this, null);
    this.view.select(this.rowsWithin(this.asPolygon(outline)), add);
  }

  onCancel() {
    this.downAt = null;
    this.outline = [];
    this.drawMarks();
  }

  onLeave() {
    if (!this.outline.length) this.view.hover(-1, this, null);
  }

  groundAt() { return null; }

  rowAt([x, y]) {
    let best = -1;
    let bestSquare = this.reach ** 2;
    for (let row = 0, at = 0; at < this.positions.length; row++, at += 2) {
      const square = (this.positions[at] - x) ** 2 + (this.positions[at + 1] - y) ** 2;
      if (square < bestSquare) [best, bestSquare] = [row, square];
    }
    return best;
  }

  // --- box and lasso ---

  extendOutline(point) {
    if (this.tool === "lasso") this.outline.push(point);
    else this.outline = [this.outline[0], point];
    this.drawMarks();
  }

  asPolygon(outline) {
    if (this.tool === "lasso") return outline;
    const [[left, top], [right, bottom]] = outline;
    return [[left, top], [right, top], [right, bottom], [left, bottom]];
  }

  rowsWithin(polygon) {
    const rows = [];
    for (let row = 0, at = 0; at < this.positions.length; row++, at += 2) {
      if (isInside(polygon, this.positions[at], this.positions[at + 1])) rows.push(row);
    }
    return rows;
  }

  // --- keys ---

  onKey(event) {
    if (event.target !== this.host || event.ctrlKey || event.metaKey || event.altKey) return;
    const arrow = ARROWS[event.key];
    if (arrow) this.view.hoverByKey(this.towards(arrow), this);
    else if (event.key === "Enter" || event.key === " ") this.view.pick(this.view.hovered, null);
    else if (event.key === "+" || event.key === "=") this.zoom(1.4);
    else if (event.key === "-") this.zoom(1 / 1.4);
    else if (event.key === "0") this.reset();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  // The tile nearest to the one now pointed at, in the direction of an arrow key.
  towards([dx, dy]) {
    const from = this.view.hovered >= 0 ? this.view.hovered : this.view.state.tile;
    if (from < 0 || Number.isNaN(this.positions[2 * from])) return this.middleRow();
    const [x, y] = this.positions.subarray(2 * from, 2 * from + 2);
    let best = from;
    let bestCost = Infinity;
    for (let row = 0; row < this.positions.length / 2; row++) {
      const [right, down] = [this.positions[2 * row] - x, this.positions[2 * row + 1] - y];
      const ahead = right * dx + down * dy;
      const aside = Math.abs(right * dy) + Math.abs(down * dx);
      const cost = ahead + 2.5 * aside;
      if (ahead > 0.5 && aside <= ahead * 1.5 && cost < bestCost) [best, bestCost] = [row, cost];
    }
    return best;
  }

  middleRow() {
    const reach = this.reach;
    this.reach = Infinity;
    const row = this.rowAt([this.width / 2, this.height / 2]);
    this.reach = reach;
    return row;
  }

  // --- marks on top ---

  // Kept, because asking the page for it anew for every dot costs more than drawing the dot.
  measure() {
    [this.width, this.height] = [this.host.clientWidth, this.host.clientHeight];
  }

  resized() {
    this.measure();
    if (this.fittedWidth === this.width && this.fittedHeight === this.height) return;
    [this.fittedWidth, this.fittedHeight] = [this.width, this.height];
    fitCanvas(this.overlay, this.width, this.height);
    this.layOut();
    this.drawMarks();
  }

  place(row) {
    const [x, y] = this.positions.subarray(2 * row, 2 * row + 2);
    return Number.isNaN(x) || row < 0 || x === undefined ? null : [x, y];
  }

  drawMarks() {
    if (this.moving) return;
    const context = this.overlay.getContext("2d");
    context.clearRect(0, 0, this.width, this.height);
    const marks = this.view.marks();
    this.drawUnder(context);
    this.drawPath(context, marks.path);
    marks.rings.forEach((ring) => this.drawRing(context, ring));
    this.drawOutline(context);
  }

  drawUnder() {}

  drawPath(context, path) {
    const points = path.map((row) => this.place(row)).filter(Boolean);
    if (points.length < 2) return;
    for (const [colour, width] of [[this.view.ink.halo, 5], [this.view.ink.accent, 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.lineJoin = "round";
      context.beginPath();
      points.forEach(([x, y]) => context.lineTo(x, y));
      context.stroke();
    }
  }

  // A ring round a tile, with a letter or number beside it.
  drawRing(context, { row, radius, colour, label, width = 2 }) {
    const point = this.place(row);
    if (!point) return;
    const [x, y] = point;
    const around = this.markRadius(radius);
    for (const [stroke, line] of [[this.view.ink.halo, width + 2.5], [colour, width]]) {
      context.strokeStyle = stroke;
      context.lineWidth = line;
      context.beginPath();
      this.traceMark(context, x, y, around);
      context.stroke();
    }
    if (label) this.drawLabel(context, label, x + around + 3, y - around - 3, colour);
  }

  markRadius(radius) { return radius; }

  traceMark(context, x, y, radius) {
    context.arc(x, y, radius, 0, 2 * Math.PI);
  }

  drawLabel(context, label, x, y, colour) {
    context.font = "600 11px system-ui, sans-serif";
    const width = Math.max(16, context.measureText(label).width + 8);
    context.fillStyle = colour;
    context.beginPath();
    context.roundRect(x - 4, y - 8, width, 16, 8);
    context.fill();
    context.fillStyle = this.view.ink.onAccent;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText(label, x - 4 + width / 2, y + 0.5);
  }

  drawOutline(context) {
    if (this.outline.length < 2) return;
    context.strokeStyle = this.view.ink.accent;
    context.fillStyle = this.view.ink.wash;
    context.lineWidth = 1.5;
    context.setLineDash([5, 4]);
    context.beginPath();
    this.asPolygon(this.outline).forEach(([x, y]) => context.lineTo(x, y));
    context.closePath();
    context.fill();
    context.stroke();
    context.setLineDash([]);
  }
}

function isInside(polygon, x, y) {
  let inside = false;
  for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
    const [[xi, yi], [xj, yj]] = [polygon[i], polygon[j]];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
  }
  return inside;
}

function fitCanvas(canvas, width, height) {
  const ratio = Math.min(2, window.devicePixelRatio || 1);
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
}

// A DOM element; text is always text, never markup.
function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return node;
}
