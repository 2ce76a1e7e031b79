// The city map: its base is the tiles themselves; every tile of the page lies on it as a coloured square.

const TILE_ALPHA = 0.62;
const NIGHT_ALPHA = 0.78; // in the dark theme the light map shines less
const SPRITES_FROM_PX = 26; // a tile this wide on the screen shows its own picture instead of the base map's

class MapPane extends Pane {
  constructor(host, view, data) {
    super(host, view);
    this.canvas = element("canvas", { class: "ground", "aria-hidden": "true" });
    host.prepend(this.canvas);
    this.tiles = view.tiles;
    this.base = new Image();
    this.base.onload = () => this.draw();
    this.spec = data.map;
    if (this.spec) this.base.src = this.spec.image;
    this.extent = this.spec ? this.specExtent() : this.tilesExtent();
    this.thin = this.tiles.count < 0.5 * this.tilesInExtent();
    this.touches = new Map();
    host.addEventListener("wheel", (event) => this.onWheel(event), { passive: false, signal: this.stops.signal });
    this.positions = new Float32Array(2 * this.tiles.count);
    this.reset();
  }

  specExtent() {
    const { origin, width, height, px_per_tile: px } = this.spec;
    return { x: origin[0], y: origin[1], width: width / px, height: height / px };
  }

  tilesExtent() {
    const { xy } = this.tiles;
    const low = [Infinity, Infinity];
    const high = [-Infinity, -Infinity];
    xy.forEach((value, i) => {
      low[i % 2] = Math.min(low[i % 2], value);
      high[i % 2] = Math.max(high[i % 2], value + 1);
    });
    return { x: low[0], y: low[1], width: high[0] - low[0], height: high[1] - low[1] };
  }

  tilesInExtent() { return this.spec?.tiles ?? this.extent.width * this.extent.height; }

  // --- where things are: `scale` is pixels per tile, `left`/`top` the tile coordinate of the pane's corner ---

  reset() {
    const { x, y, width, height } = this.extent;
    this.scale = Math.min(this.width / width, this.height / height) * 0.98 || 1;
    this.left = x + width / 2 - this.width / 2 / this.scale;
    this.top = y + height / 2 - this.height / 2 / this.scale;
    this.fitted = true;
    this.layOut();
  }

  layOut() {
    fitCanvas(this.canvas, this.width, this.height);
    if (this.fitted && this.lastSize !== `${this.width}x${this.height}`) {
      this.lastSize = `${this.width}x${this.height}`;
      return this.reset();
    }
    this.moved();
  }

  moved() {
    const { xy, count } = this.tiles;
    for (let row = 0; row < count; row++) {
      this.positions[2 * row] = (xy[2 * row] + 0.5 - this.left) * this.scale;
      this.positions[2 * row + 1] = (xy[2 * row + 1] + 0.5 - this.top) * this.scale;
    }
    this.side = Math.max(this.scale, this.thin ? 7 : 1.5);
    this.reach = Math.max(this.thin ? 14 : 9, this.side * 0.75);
    this.draw();
    this.drawMarks();
  }

  zoom(factor, [x, y] = [this.width / 2, this.height / 2]) {
    const fit = Math.min(this.width / this.extent.width, this.height / this.extent.height);
    const scale = Math.min(256, Math.max(fit * 0.6, this.scale * factor));
    this.left += x / this.scale - x / scale;
    this.top += y / this.scale - y / scale;
    this.scale = scale;
    this.fitted = false;
    this.moved();
  }

  // Bring a tile into sight.
  show(row) {
    const [x, y] = [this.positions[2 * row], this.positions[2 * row + 1]];
    const margin = 24;
    if (x > margin && y > margin && x < this.width - margin && y < this.height - margin) return;
    this.left = this.tiles.x(row) + 0.5 - this.width / 2 / this.scale;
    this.top = this.tiles.y(row) + 0.5 - this.height / 2 / this.scale;
    this.fitted = false;
    this.moved();
  }

  groundAt([x, y]) {
    return latlonOfTile(this.left + x / this.scale, this.top + y / this.scale, this.tiles.zoom);
  }

  rowAt(point) {
    const exact = this.tiles.rowAt(
      Math.floor(this.left + point[0] / this.scale), Math.floor(this.top + point[1] / this.scale));
    return exact >= 0 ? exact : super.rowAt(point);
  }

  // --- moving it ---

  onWheel(event) {
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0018)), this.at(event));
  }

  onDown(event) {
    this.touches.set(event.pointerId, this.at(event));
    super.onDown(event);
    if (this.tool === "pan" && !event.target.closest("button, a")) this.host.setPointerCapture(event.pointerId);
  }

  dragged(event, point) {
    const before = this.touches.get(event.pointerId);
    if (!before || this.tool !== "pan") return;
    const other = [...this.touches].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const middle = [(point[0] + other[0]) / 2, (point[1] + other[1]) / 2];
      const spread = (at) => Math.hypot(at[0] - other[0], at[1] - other[1]) || 1;
      this.zoom(spread(point) / spread(before), middle);
    } else {
      this.left -= (point[0] - before[0]) / this.scale;
      this.top -= (point[1] - before[1]) / this.scale;
      this.fitted = false;
      this.moved();
    }
    this.touches.set(event.pointerId, point);
  }

  onUp(event) {
    if (this.touches.size > 1) this.downAt = null;
    this.touches.delete(event.pointerId);
    super.onUp(event);
  }

  onCancel(event) {
    this.touches.delete(event.pointerId);
    super.onCancel(event);
  }

  // --- drawing ---

  draw() {
    if (this.drawing) return;
    this.drawing = requestAnimationFrame(() => {
      this.drawing = 0;
      this.paint(this.canvas.getContext("2d"));
    });
  }

  paint(context) {
    context.clearRect(0, 0, this.width, this.height);
    context.globalAlpha = this.view.dark ? NIGHT_ALPHA : 1;
    this.paintBase(context);
    if (this.scale >= SPRITES_FROM_PX) this.paintSprites(context);
    context.globalAlpha = 1;
    if (this.view.css) this.paintTiles(context);
  }

  paintBase(context) {
    if (!this.spec || !this.base.naturalWidth) return;
    const { x, y, width, height } = this.extent;
    context.imageSmoothingQuality = "high";
    const left = (x - this.left) * this.scale;
    const top = (y - this.top) * this.scale;
    context.drawImage(this.base, left, top, width * this.scale, height * this.scale);
  }

  inSight(row) {
    const [x, y] = [this.positions[2 * row], this.positions[2 * row + 1]];
    return x > -this.side && y > -this.side && x < this.width + this.side && y < this.height + this.side;
  }

  paintSprites(context) {
    for (let row = 0; row < this.tiles.count; row++) {
      if (!this.inSight(row)) continue;
      const [x, y] = [this.positions[2 * row] - this.scale / 2, this.positions[2 * row + 1] - this.scale / 2];
      this.view.pictures.draw(context, row, x, y, this.scale + 0.5);
    }
  }

  // Squares over the tiles; hollow where the tile is large enough to look at.
  paintTiles(context) {
    const { css, greyed, ink, state } = this.view;
    const hollow = this.scale >= 2 * SPRITES_FROM_PX;
    const side = this.thin ? Math.max(this.side * 0.92, 7) : Math.max(this.side * (this.side > 6 ? 0.94 : 1), 1.5);
    const strength = state.map === "plain" ? 0 : 1;
    if (!strength && !this.view.selection.size) return;
    context.lineWidth = Math.max(2, this.scale * 0.05);
    for (let row = 0; row < this.tiles.count; row++) {
      if (!this.inSight(row) || (!strength && greyed(row))) continue;
      const out = greyed(row);
      const colour = out ? ink.greyMap : css[row];
      const [x, y] = [this.positions[2 * row] - side / 2, this.positions[2 * row + 1] - side / 2];
      context.globalAlpha = out ? 0.5 : this.thin ? 0.9 : TILE_ALPHA;
      context[hollow ? "strokeStyle" : "fillStyle"] = colour;
      if (hollow) context.strokeRect(x + 2, y + 2, side - 4, side - 4);
      else context.fillRect(x, y, side, side);
    }
    context.globalAlpha = 1;
  }

  markRadius(radius) {
    return Math.max(radius * 0.7, this.side / 2 + 1);
  }

  traceMark(context, x, y, radius) {
    context.roundRect(x - radius, y - radius, 2 * radius, 2 * radius, 3);
  }
}
