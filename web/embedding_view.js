// The embedding: one dot for each tile. Plotly draws the dots; pointing, selecting and the camera are done here. Plotly
// takes a second to start: until then the dots of flat projections are drawn on a canvas.

import { arrayOf } from "./arrays.js";
import { AXIS_RANGE, Camera } from "./camera.js";
import { mix } from "./colour.js";
import { context2d, element, fitCanvas, loadedImage, nextFrame, painted } from "./dom.js";
import { TileView } from "./tile_view.js";

/** @import { Explorer } from "./explorer.js" */
/** @import { PageData, Pin, PlotlyApi, PlotlyElement, Point } from "./types.d.ts" */
/** @typedef {[number, number]} Range */

const TRANSITION_MS = 750;
const MOST_STRETCH = 1.6;
const MARGIN_PX = 24; // around the dots
const BARS_PX = 48; // the tools and the caption, which lie over the plot
const ROUND_DOTS = 3000; // more are drawn as squares while they move, which is faster
const ROUND_STILL_DOTS = 20_000; // the same before Plotly has come

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
    this.host.prepend(this.plot);
    this.webgl = hasWebgl();
    this.algorithm = "";
    this.dimensions = 0;
    /** @type {PlotlyApi | null} */
    this.plotly = null;
    /** @type {Promise<PlotlyApi> | null} */
    this.loading = null;
    this.isListening = false; // to Plotly's events
    this.run = 0; // counts changes of projection: a newer one overtakes an older one
    this.sketched = false; // the dots are on the canvas until Plotly draws them
    /** @type {Map<string, Float32Array>} */
    this.points = new Map();
    this.order = Uint32Array.from({ length: data.count }, (_, row) => row); // in which the dots are drawn
    this.camera = new Camera();
    /** @type {Float32Array | null} */
    this.depths = null; // of the dots in 3-D
    /** @type {[Range, Range]} */
    this.ranges = [[0, 1], [0, 1]]; // of the flat plot's axes
    this.showsAll = true;
    this.turning = 0; // the frame in which Plotly gets the camera
    this.reach = 14;
  }

  destroy() {
    super.destroy();
    this.run = -1; // so that nothing that still waits for Plotly draws
    cancelAnimationFrame(this.turning);
    this.plotly?.purge(this.plot);
  }

  get solid() { return this.dimensions === 3; }
  get drawsOnCanvas() { return (this.solid && !this.webgl) || this.sketched; }
  get movesItself() { return this.solid; }

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
    const coordinates = Float32Array.from(arrayOf(points), (step, i) => step * scale[i % scale.length]);
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
    const from = this.positions.slice();
    const run = ++this.run;
    Object.assign(this, { algorithm, dimensions });
    this.host.classList.toggle("solid", this.solid);
    this.showAll();
    const flies = animate && this.plotly && from.length && !matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (flies) this.takeOff(from);
    if (!this.plotly) await this.startPlotly();
    if (run !== this.run) return;
    await this.render();
    if (run === this.run && flies) await this.fly(from, run);
    if (run === this.run) this.host.dataset.shown = `${algorithm}-${dimensions}`;
  }

  /** Draw the dots on the canvas while Plotly loads. */
  async startPlotly() {
    this.sketched = !(this.solid && this.webgl);
    this.sortGreyFirst();
    this.relocate();
    if (this.sketched) {
      this.explorer.drawn();
      await painted();
    }
    this.plotly = await (this.loading ??= this.loadPlotly());
  }

  // --- Plotly ---

  async render() {
    const plotly = /** @type {PlotlyApi} */ (this.plotly);
    this.sortGreyFirst();
    if (this.solid && !this.webgl) {
      plotly.purge(this.plot);
      this.isListening = false;
    } else {
      const config = { displayModeBar: false, displaylogo: false, scrollZoom: true, doubleClick: false };
      await plotly.react(this.plot, [this.trace()], this.layout(), config);
      this.listenToPlotly();
    }
    await nextFrame();
    this.sketched = false;
    this.relocate();
    this.explorer.drawn();
  }

  /** Follow Plotly while it moves and zooms the flat plot. */
  listenToPlotly() {
    if (this.isListening) return;
    this.isListening = true;
    for (const event of ["plotly_relayouting", "plotly_relayout"]) {
      this.plot.on(event, (change) => {
        ["xaxis", "yaxis"].forEach((axis, d) => [0, 1].forEach((end) => {
          const value = change[`${axis}.range[${end}]`];
          if (value === undefined) return;
          this.ranges[d][end] = value;
          this.showsAll = false;
        }));
        if (!this.moving) this.relocate();
      });
    }
  }

  /** Selected dots are drawn last, so that no grey one hides them. */
  sortGreyFirst() {
    const grey = Array.from(this.order, (_, row) => this.explorer.isGrey(row));
    const rows = [...grey.keys()];
    this.order.set([...rows.filter((row) => grey[row]), ...rows.filter((row) => !grey[row])]);
  }

  trace() {
    const { css, ink } = this.explorer;
    const [points, step, size] = [this.coordinates(), this.dimensions, this.dotSize()];
    /** @param {number} d */
    const axis = (d) => Float32Array.from(this.order, (row) => points[row * step + d]);
    const color = Array.from(this.order, (row) => (this.explorer.isGrey(row) ? ink.greyDot : css[row]));
    const line = size >= 6 && !this.solid ? { width: 0.8, color: ink.dotEdge } : { width: 0 };
    const marker = { color, size: this.solid ? size * 0.6 : size, opacity: this.solid ? 1 : 0.9, line };
    const trace = { mode: "markers", hoverinfo: "skip", marker, x: axis(0), y: axis(1) };
    if (!this.solid) return { ...trace, type: this.webgl ? "scattergl" : "scatter" };
    return { ...trace, type: "scatter3d", z: axis(2) };
  }

  dotSize() {
    const area = this.width * this.height;
    return Math.min(11, Math.max(3.2, Math.sqrt(area / this.data.count) * 0.36));
  }

  layout() {
    const layout = {
      autosize: true, margin: { l: 0, r: 0, t: 0, b: 0 }, showlegend: false, hovermode: false, dragmode: "pan",
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: "system-ui, sans-serif" },
    };
    if (this.solid) return { ...layout, scene: this.scene() };
    const axis = { visible: false, autorange: false, fixedrange: false };
    const [x, y] = this.ranges.map((range) => [...range]);
    return { ...layout, xaxis: { ...axis, range: x }, yaxis: { ...axis, range: y } };
  }

  scene() {
    const { ink } = this.explorer;
    const axis = {
      title: { text: "" }, showticklabels: false, showbackground: false, gridcolor: ink.grid, zeroline: false,
      showspikes: false, showline: true, linecolor: ink.grid, ticks: "", range: [...AXIS_RANGE], autorange: false,
    };
    return {
      xaxis: axis, yaxis: { ...axis }, zaxis: { ...axis }, aspectmode: "cube", dragmode: false,
      camera: this.camera.plotly(),
    };
  }

  /** Draw the dots again, in new colours. */
  recolour() {
    if (!this.algorithm) return;
    if (this.plotly && !this.drawsOnCanvas) this.render();
    else {
      this.sortGreyFirst();
      this.drawMarks();
    }
  }

  layOut() {
    if (!this.algorithm || !this.width || this.moving) return;
    if (this.showsAll) this.showAll();
    if (this.drawsOnCanvas || !this.plotly || !this.isListening) this.relocate();
    else this.plotly.Plots.resize(this.plot).then(() => this.sendView());
  }

  // --- moving ---

  /** Let the view show every dot. */
  showAll() {
    this.showsAll = true;
    this.camera.reset(this.width, this.height);
    if (!this.solid) this.ranges = this.homeRanges();
  }

  reset() {
    if (!this.plotly) return;
    this.showAll();
    this.sendView();
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
   * Turn the 3-D plot, or move it with Shift; Plotly moves the flat one.
   * @param {number} dx
   * @param {number} dy
   * @param {PointerEvent} event
   */
  moveBy(dx, dy, event) {
    if (event.shiftKey) this.camera.shiftBy(dx, dy, this.height);
    else this.camera.turnBy(dx, dy);
    this.showsAll = false;
    this.sendView();
  }

  /** @param {number} factor */
  zoom(factor) {
    if (!this.plotly) return;
    this.showsAll = false;
    this.camera.zoom(factor);
    const [x, y] = this.ranges.map(([low, high]) => {
      const [middle, half] = [(low + high) / 2, (high - low) / 2 / factor];
      return /** @type {Range} */ ([middle - half, middle + half]);
    });
    this.ranges = [x, y];
    this.sendView();
  }

  /** Let Plotly show the view that is wanted, at most once a frame. */
  sendView() {
    if (this.drawsOnCanvas || !this.plotly) return this.relocate();
    this.turning ||= requestAnimationFrame(async () => {
      this.turning = 0;
      const [x, y] = this.ranges.map((range) => [...range]);
      const change = this.solid ? { "scene.camera": this.camera.plotly() } : { "xaxis.range": x, "yaxis.range": y };
      await this.plotly?.relayout(this.plot, change);
      if (!this.moving) this.relocate();
    });
  }

  // --- where each dot is on the screen ---

  /**
   * Where coordinates of the shown projection are on the screen, and in 3-D how far away.
   * @param {Float32Array} points
   * @returns {{positions: Float32Array<ArrayBuffer>, depths: Float32Array | null}}
   */
  project(points) {
    if (this.solid) return this.camera.project(points, this.width, this.height);
    const [[left, right], [bottom, top]] = this.ranges;
    const [scaleX, scaleY] = [this.width / (right - left), this.height / (top - bottom)];
    return { positions: points.map((value, i) => (i % 2 ? (top - value) * scaleY : (value - left) * scaleX)), depths: null };
  }

  locate() {
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

  relocate() {
    this.locate();
    this.drawMarks();
  }

  // --- on the canvas ---

  /** @param {CanvasRenderingContext2D} context */
  drawUnder(context) {
    if (!this.algorithm) return;
    if (this.drawsOnCanvas) this.drawDots(context, this.positions, this.order.length <= ROUND_STILL_DOTS);
    if (this.explorer.state.dots === "pictures") this.drawPictures(context);
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {Float32Array} positions
   * @param {boolean} round
   */
  drawDots(context, positions, round) {
    const { css, ink } = this.explorer;
    const size = this.dotSize();
    const { depths } = this;
    const rows = this.solid && depths ? this.order.slice().sort((a, b) => depths[b] - depths[a]) : this.order;
    for (const row of rows) {
      const [x, y] = [positions[2 * row], positions[2 * row + 1]];
      context.fillStyle = this.explorer.isGrey(row) ? ink.greyDot : css[row];
      if (!round) context.fillRect(x - size / 2, y - size / 2, size, size);
      else {
        context.beginPath();
        context.arc(x, y, size / 2, 0, 2 * Math.PI);
        context.fill();
      }
    }
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
      if (!(x > 0 && y > 0 && x < this.width && y < this.height)) continue;
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

  // --- from one projection to the next ---

  /**
   * Draw the dots where they are, and hide Plotly's, which show the next projection as soon as it is ready.
   * @param {Float32Array} from
   */
  takeOff(from) {
    this.moving = true;
    this.host.classList.add("moving");
    const context = context2d(this.overlay);
    context.clearRect(0, 0, this.width, this.height);
    this.drawDots(context, from, this.order.length <= ROUND_DOTS);
  }

  /**
   * @param {Float32Array} from
   * @param {number} run
   */
  async fly(from, run) {
    const to = this.positions;
    const context = context2d(this.overlay);
    const started = performance.now();
    for (let share = 0; share < 1 && run === this.run;) {
      share = Math.min(1, (performance.now() - started) / TRANSITION_MS);
      const eased = share < 0.5 ? 4 * share ** 3 : 1 - (-2 * share + 2) ** 3 / 2;
      this.positions = to.map((target, i) => mix(Number.isNaN(from[i]) ? target : from[i], target, eased));
      context.clearRect(0, 0, this.width, this.height);
      this.drawDots(context, this.positions, this.order.length <= ROUND_DOTS);
      await nextFrame();
    }
    if (run !== this.run) return;
    this.moving = false;
    this.host.classList.remove("moving");
    this.relocate();
  }

  /** The view as a picture. */
  async image() {
    const picture = element("canvas");
    fitCanvas(picture, this.width, this.height);
    const context = context2d(picture);
    if (this.plotly && !this.drawsOnCanvas) {
      const size = { format: "png", width: this.width, height: this.height, scale: 2 };
      context.drawImage(await loadedImage(await this.plotly.toImage(this.plot, size)), 0, 0, this.width, this.height);
    }
    context.drawImage(this.overlay, 0, 0, this.width, this.height);
    return picture;
  }
}

function hasWebgl() {
  const context = element("canvas").getContext("webgl");
  context?.getExtension("WEBGL_lose_context")?.loseContext();
  return Boolean(context);
}
