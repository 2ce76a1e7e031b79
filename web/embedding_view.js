// The embedding: one dot for each tile. Plotly draws a solid projection, once it is asked for and has started. Pointing,
// selecting, moving and the camera are done here.

import { arrayOf } from "./arrays.js";
import { AXIS_RANGE, Camera } from "./camera.js";
import { mix, rgbaOf } from "./colour.js";
import { context2d, copyCanvas, element, fitCanvas, loadedImage, nextFrame, painted } from "./dom.js";
import { dotsAbove } from "./dots.js";
import { graphics } from "./graphics.js";
import { TileView } from "./tile_view.js";

/** @import { Explorer } from "./explorer.js" */
/** @import { PageData, Pin, PlotlyApi, PlotlyElement, Point } from "./types.d.ts" */
/** @typedef {[number, number]} Range */

const PLOTLY_PX = 3.04; // pixels across of a dot that Plotly draws in 3-D, for each unit of its size (measured)
const TRANSITION_MS = 750;
const MOST_STRETCH = 1.6;
const MARGIN_PX = 24; // around the dots
const BARS_PX = 48; // the tools and the caption, which lie over the plot
const EDGED_PX = 6; // dots this large have a line around them
const EDGE_PX = 0.8;

export class EmbeddingView extends TileView {
  /**
   * @param {HTMLElement} host
   * @param {Explorer} explorer
   * @param {PageData} data
   * @param {() => Promise<PlotlyApi>} loadPlotly
   */
  constructor(host, explorer, data, loadPlotly) {
    super(host, explorer);
    this.data = data;
    this.loadPlotly = loadPlotly;
    this.plot = /** @type {PlotlyElement} */ (/** @type {HTMLElement} */ (element("div", { class: "plot" })));
    this.overlay.before(this.plot);
    this.dots = dotsAbove(this.plot, () => this.relocate());
    this.webgl = graphics().webgl; // Plotly needs it
    this.algorithm = "";
    this.dimensions = 0;
    /** @type {PlotlyApi | null} */
    this.plotly = null;
    this.run = 0; // counts changes of projection: a newer one overtakes an older one
    /** @type {Map<string, Float32Array>} */
    this.points = new Map();
    this.order = Uint32Array.from({ length: data.count }, (_, row) => row); // in which the dots are drawn
    this.camera = new Camera();
    this.colours = new Uint8Array(0); // red, green, blue and opacity of each dot
    /** @type {Float32Array | null} */
    this.depths = null; // of the dots of a solid projection
    /** @type {[Range, Range]} */
    this.ranges = [[0, 1], [0, 1]]; // of the coordinates that a flat view shows
    this.showsAll = true;
    this.frame = 0; // in which a movement is drawn
    this.reach = 14;
  }

  destroy() {
    super.destroy();
    this.run = -1; // so that nothing that still waits for Plotly draws
    cancelAnimationFrame(this.frame);
    this.dots.destroy();
    this.plotly?.purge(this.plot);
  }

  /** Whether Plotly shows the projection now. */
  get byPlotly() { return this.host.classList.contains("by-plotly"); }
  get solid() { return this.dimensions === 3; }

  /** Coordinates of the shown projection, one tile after another. */
  coordinates() { return this.coordinatesOf(this.algorithm, this.dimensions); }

  /**
   * @param {string} algorithm
   * @param {number} dimensions
   */
  coordinatesOf(algorithm, dimensions) {
    const name = `${algorithm}-${dimensions}`;
    const known = this.points.get(name);
    if (known) return known;
    const { points, scale } = this.data.projections[name];
    const coordinates = new Float32Array(arrayOf(points));
    for (let i = 0; i < coordinates.length; i++) coordinates[i] *= scale[i % scale.length];
    this.points.set(name, coordinates);
    return coordinates;
  }

  /**
   * Show a projection; the dots fly from where they are to where they belong.
   * @param {string} algorithm
   * @param {number} dimensions
   */
  async show(algorithm, dimensions, { animate = true } = {}) {
    if (algorithm === this.algorithm && dimensions === this.dimensions) return;
    const from = this.positions;
    const run = ++this.run;
    Object.assign(this, { algorithm, dimensions });
    this.host.classList.remove("by-plotly");
    this.host.classList.toggle("solid", this.solid);
    this.showAll();
    this.locate();
    this.sortAndPaint();
    if (animate && from.length && !matchMedia("(prefers-reduced-motion: reduce)").matches) await this.fly(from, run);
    if (run !== this.run) return;
    this.draw();
    this.explorer.drawn();
    if (this.solid && this.webgl) {
      await painted();
      this.plotly ??= await this.loadPlotly();
      if (run === this.run) await this.showInPlotly();
    }
    if (run === this.run) this.host.dataset.shown = `${algorithm}-${dimensions}`;
  }

  /**
   * Let the dots fly to where they belong.
   * @param {Float32Array} from
   * @param {number} run
   */
  async fly(from, run) {
    const to = this.positions;
    this.moving = true;
    this.host.classList.add("moving");
    const context = context2d(this.overlay);
    const started = performance.now();
    for (let share = 0; share < 1 && run === this.run;) {
      share = Math.min(1, (performance.now() - started) / TRANSITION_MS);
      const eased = share < 0.5 ? 4 * share ** 3 : 1 - (-2 * share + 2) ** 3 / 2;
      this.positions = to.map((target, i) => mix(Number.isNaN(from[i]) ? target : from[i], target, eased));
      this.drawDots();
      this.clear(context);
      if (!this.dots.isLayer) copyCanvas(context, this.dots.canvas);
      await nextFrame();
    }
    if (run !== this.run) return;
    this.positions = to;
    this.moving = false;
    this.host.classList.remove("moving");
  }

  // --- where each dot is on the screen ---

  /** Let the view show every dot. */
  showAll() {
    this.showsAll = true;
    this.camera.reset(this.width, this.height);
    if (!this.solid) this.ranges = this.homeRanges();
  }

  /**
   * Ranges of the axes that show every dot. PCA keeps one scale along both; in other projections large distances mean
   * little, and the dots may stretch to fill the view.
   * @returns {[Range, Range]}
   */
  homeRanges() {
    const { extent } = this.data.projections[`${this.algorithm}-${this.dimensions}`];
    const bounds = extent.map((reach) => [0, reach]);
    const sizes = [this.width || 1, this.height || 1];
    const free = sizes.map((size, d) => Math.max(1, size - 2 * MARGIN_PX - (d ? BARS_PX : 0)));
    const unitsPerPx = bounds.map(([low, high], d) => (high - low || 1) / free[d]);
    const stretch = this.algorithm === "PCA" ? 1 : MOST_STRETCH;
    const [x, y] = bounds.map(([low, high], d) => {
      const scale = Math.max(unitsPerPx[d], Math.max(...unitsPerPx) / stretch);
      const middle = (low + high) / 2 + (d ? (scale * (BARS_PX - MARGIN_PX)) / 4 : 0); // tools above, a caption below
      return /** @type {Range} */ ([middle - (scale * sizes[d]) / 2, middle + (scale * sizes[d]) / 2]);
    });
    return [x, y];
  }

  /**
   * Where coordinates of the shown projection are on the screen, and how far away if it is solid.
   * @param {Float32Array} points
   * @returns {{positions: Float32Array<ArrayBuffer>, depths: Float32Array | null}}
   */
  project(points) {
    if (this.solid) return this.camera.project(points, this.width, this.height);
    const [[left, right], [bottom, top]] = this.ranges;
    const [scaleX, scaleY] = [this.width / (right - left), this.height / (top - bottom)];
    const positions = new Float32Array(points.length);
    for (let at = 0; at < points.length; at += 2) {
      positions[at] = (points[at] - left) * scaleX;
      positions[at + 1] = (top - points[at + 1]) * scaleY;
    }
    return { positions, depths: null };
  }

  locate() {
    this.rest();
    this.locations++;
    const { positions, depths } = this.project(this.coordinates());
    this.positions = positions;
    this.depths = depths ?? this.depths;
    this.explorer.located(this);
  }

  /**
   * @param {Pin} pin
   * @returns {Point | null}
   */
  placeOfPin({ point }) {
    if (!point || this.solid) return null;
    const [[left, right], [bottom, top]] = this.ranges;
    return [(point[0] - left) * this.width / (right - left), (top - point[1]) * this.height / (top - bottom)];
  }

  // --- moving ---

  layOut() {
    this.dots.fit(this.width, this.height);
    if (!this.algorithm || !this.width || this.moving) return;
    if (this.showsAll) this.showAll();
    if (this.byPlotly) this.plotly?.Plots.resize(this.plot);
    this.relocate();
  }

  reset() {
    this.showAll();
    this.redraw();
  }

  /**
   * Move the flat view; turn the solid one, or move it with Shift.
   * @param {number} dx
   * @param {number} dy
   * @param {PointerEvent} event
   */
  moveBy(dx, dy, event) {
    if (this.solid && event.shiftKey) this.camera.shiftBy(dx, dy, this.height);
    else if (this.solid) this.camera.turnBy(dx, dy);
    else this.shiftBy(dx, dy);
    this.showsAll = false;
    if (this.solid || this.moving) this.redraw();
    else this.slide(dx, dy);
  }

  /**
   * Move the flat view.
   * @param {number} dx
   * @param {number} dy
   */
  shiftBy(dx, dy) {
    const [[left, right], [bottom, top]] = this.ranges;
    const [x, y] = [(dx * (right - left)) / this.width, (dy * (top - bottom)) / this.height];
    this.ranges = [[left - x, right - x], [bottom + y, top + y]];
  }

  /** @param {number} row */
  reveal(row) {
    const place = this.place(row); // none behind the eye
    if (!this.algorithm || (!place && !this.solid)) return false;
    const [x, y] = place ?? [NaN, NaN];
    if (x >= 0 && y >= 0 && x <= this.width && y <= this.height) return false;
    if (this.solid) this.camera.lookAt(this.coordinates().subarray(3 * row, 3 * row + 3));
    else this.shiftBy(this.width / 2 - x, this.height / 2 - y);
    this.showsAll = false;
    this.redraw();
    return true;
  }

  /**
   * @param {number} factor
   * @param {Point} around
   */
  zoom(factor, [x, y] = [this.width / 2, this.height / 2]) {
    this.showsAll = false;
    this.camera.zoom(factor);
    const shares = [x / this.width, 1 - y / this.height];
    const [across, up] = this.ranges.map(([low, high], d) => {
      const fixed = mix(low, high, shares[d]);
      return /** @type {Range} */ ([fixed - (fixed - low) / factor, fixed + (high - fixed) / factor]);
    });
    this.ranges = [across, up];
    this.redraw();
  }

  redraw() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.relocate();
    });
  }

  relocate() {
    if (!this.algorithm || this.moving) return;
    this.locate();
    if (this.byPlotly) this.plotly?.relayout(this.plot, { "scene.camera": this.camera.plotly() });
    else if (this.solid) this.paint();
    this.draw();
  }

  // --- drawing ---

  /** Draw the dots again, in new colours. */
  recolour() {
    if (!this.algorithm) return;
    this.sortAndPaint();
    if (this.byPlotly) this.showInPlotly();
    else if (!this.moving) this.draw();
  }

  /** Grey dots come first, so that none hides a coloured one. */
  sortAndPaint() {
    const { explorer } = this;
    let [grey, coloured] = [0, this.order.length];
    for (let row = coloured - 1; row >= 0; row--) if (!explorer.isGrey(row)) this.order[--coloured] = row;
    for (let row = 0; grey < coloured; row++) if (explorer.isGrey(row)) this.order[grey++] = row;
    this.host.dataset.grey = String(grey);
    this.colours = explorer.rgba(1, rgbaOf(explorer.ink.greyDot));
    this.paint();
  }

  /** Of a solid projection, the nearest dots come last. */
  paint() {
    const { depths, order } = this;
    this.dots.paint(this.solid && depths ? order.slice().sort((a, b) => depths[b] - depths[a]) : order, this.colours);
  }

  draw() {
    if (!this.byPlotly) this.drawDots();
    this.blank = false;
    this.drawMarks();
  }

  drawDots() {
    const size = this.dotSize();
    const line = size >= EDGED_PX && !this.solid ? { width: EDGE_PX, colour: rgbaOf(this.explorer.ink.dotEdge) } : null;
    this.dots.draw(this.positions, { size, round: true, line });
  }

  dotSize() {
    const area = this.width * this.height, size = Math.min(11, Math.max(3.2, Math.sqrt(area / this.data.count) * 0.36));
    return this.solid ? 0.8 * size : size;
  }

  /** @param {CanvasRenderingContext2D} context */
  drawUnder(context) {
    if (!this.algorithm) return;
    if (this.explorer.state.dots === "pictures") this.drawPictures(context);
    else if (!this.dots.isLayer && !this.byPlotly) copyCanvas(context, this.dots.canvas);
  }

  /**
   * Tiles in place of dots, as many as fit without hiding each other.
   * @param {CanvasRenderingContext2D} context
   */
  drawPictures(context) {
    const side = Math.round(Math.min(44, Math.max(24, Math.sqrt((this.width * this.height) / this.data.count) * 1.3)));
    const taken = new Set();
    const { css, pictures, state } = this.explorer;
    for (const row of this.order.slice().reverse()) {
      const [x, y] = [this.positions[2 * row], this.positions[2 * row + 1]];
      if (!this.nearView(x, y, 0)) continue;
      const [left, top] = [Math.floor(x / side) * side, Math.floor(y / side) * side];
      if (taken.has(`${left},${top}`)) continue;
      taken.add(`${left},${top}`);
      context.globalAlpha = this.explorer.isGrey(row) ? 0.22 : 1;
      context.fillStyle = css[row];
      context.fillRect(left + 1, top + 1, side - 2, side - 2);
      pictures.draw(context, row, left + 3, top + 3, side - 6, state.preview);
    }
    context.globalAlpha = 1;
  }

  /** The view as a picture. */
  async image() {
    const picture = element("canvas");
    fitCanvas(picture, this.width, this.height);
    const context = context2d(picture);
    const shows = this.explorer.state.dots === "dots";
    if (this.byPlotly && shows) {
      const size = { format: "png", width: this.width, height: this.height, scale: 2 };
      const image = await this.plotly?.toImage(this.plot, size);
      if (image) context.drawImage(await loadedImage(image), 0, 0, this.width, this.height);
    } else if (this.dots.isLayer && shows && !this.byPlotly) {
      this.drawDots();
      copyCanvas(context, this.dots.canvas);
    }
    copyCanvas(context, this.overlay);
    return picture;
  }

  // --- Plotly, for solid projections ---

  async showInPlotly() {
    const run = this.run;
    const config = { displayModeBar: false, displaylogo: false, doubleClick: false };
    await this.plotly?.react(this.plot, [this.trace()], this.layout(), config);
    await nextFrame();
    if (run !== this.run) return;
    this.host.classList.add("by-plotly");
    this.relocate();
  }

  trace() {
    const { css, ink } = this.explorer;
    const points = this.coordinates();
    /** @param {number} d */
    const axis = (d) => Float32Array.from(this.order, (row) => points[row * 3 + d]);
    const color = Array.from(this.order, (row) => (this.explorer.isGrey(row) ? ink.greyDot : css[row]));
    const marker = { color, size: this.dotSize() / PLOTLY_PX, opacity: 1, line: { width: 0 } };
    return { type: "scatter3d", mode: "markers", hoverinfo: "skip", marker, x: axis(0), y: axis(1), z: axis(2) };
  }

  layout() {
    const { ink } = this.explorer;
    const axis = {
      title: { text: "" }, showticklabels: false, showbackground: false, gridcolor: ink.grid, zeroline: false,
      showspikes: false, showline: true, linecolor: ink.grid, ticks: "", range: [...AXIS_RANGE], autorange: false,
    };
    const scene = {
      xaxis: axis, yaxis: { ...axis }, zaxis: { ...axis }, aspectmode: "cube", dragmode: false, camera: this.camera.plotly(),
    };
    return {
      autosize: true, margin: { l: 0, r: 0, t: 0, b: 0 }, showlegend: false, hovermode: false, scene,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: "system-ui, sans-serif" },
    };
  }
}
