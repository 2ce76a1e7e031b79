// The embedding: Plotly draws the dots; what is pointed at, selected and moved is worked out here. Its script takes a
// second to start: until then flat projections stand on the canvas, and can be pointed at, picked and selected.

const TRANSITION_MS = 750;
const MOST_STRETCH = 1.6;
const MARGIN_PX = 24; // round the dots
const BARS_PX = 48; // the tools and the caption, which lie over the plot
const ROUND_DOTS = 3000; // more are drawn as squares while they move: faster

class EmbeddingPane extends Pane {
  constructor(host, view, data, loadPlotly) {
    super(host, view);
    this.loadPlotly = loadPlotly;
    this.data = data;
    this.plot = element("div", { class: "plot" });
    this.host.prepend(this.plot);
    this.webgl = hasWebgl();
    this.points = {};
    this.camera = { turn: 0.7, lift: 0.45, distance: 1 };
    this.order = Uint32Array.from({ length: data.count }, (_, row) => row);
    this.reach = 14;
    const redraw = () => this.follow();
    for (const name of ["wheel", "pointermove", "pointerup"]) {
      this.host.addEventListener(name, redraw, { signal: this.stops.signal, passive: true, capture: true });
    }
    this.host.addEventListener("wheel", (event) => this.onWheel(event), { passive: false, signal: this.stops.signal });
  }

  destroy() {
    super.destroy();
    this.run = -1; // nothing that still waits for Plotly draws
    cancelAnimationFrame(this.following);
    this.Plotly?.purge(this.plot);
  }

  get projection() { return this.data.projections[`${this.algorithm}-${this.dimensions}`]; }
  get solid() { return this.dimensions === 3; }
  get plotly3d() { return this.solid && this.webgl; }
  get canvas3d() { return this.solid && !this.webgl; }

  // Flat coordinates of a projection, dequantised once.
  coordinates() {
    const { projection } = this;
    const name = `${this.algorithm}-${this.dimensions}`;
    return (this.points[name] ??= dequantised(projection, this.dimensions));
  }

  axis(d) {
    const [points, step] = [this.coordinates(), this.dimensions];
    return Float32Array.from(this.order, (row) => points[row * step + d]);
  }

  // Show a projection; the dots fly from where they are to where they belong.
  async show(algorithm, dimensions, { animate = true } = {}) {
    if (algorithm === this.algorithm && dimensions === this.dimensions) return;
    const from = this.positions.slice();
    const run = (this.run = (this.run ?? 0) + 1); // a newer switch overtakes this one
    Object.assign(this, { algorithm, dimensions });
    this.homes = (this.homes ?? 0) + 1;
    const flies = animate && this.Plotly && from.length > 0 && !matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (flies) this.takeOff(from);
    if (!this.Plotly) await this.startPlotly();
    if (run !== this.run) return;
    await this.render();
    if (run === this.run && flies) await this.fly(from, run);
    if (run === this.run) this.host.dataset.shown = `${algorithm}-${dimensions}`;
  }

  // --- before Plotly ---

  async startPlotly() {
    this.sketched = !this.plotly3d;
    this.sortGreyFirst();
    this.relocate();
    if (this.sketched) {
      this.view.drawn();
      await painted();
    }
    this.Plotly = await (this.loading ??= this.loadPlotly());
  }

  // Where Plotly will draw them.
  locateAtHome() {
    const [x, y] = this.homeRanges();
    const [xaxis, yaxis] = [{ range: x, _offset: 0, _length: this.width }, { range: y, _offset: 0, _length: this.height }];
    return this.locateOnAxes({ xaxis, yaxis });
  }

  // --- Plotly ---

  async render() {
    this.sortGreyFirst();
    if (this.canvas3d) {
      this.Plotly.purge(this.plot);
    } else {
      const config = { displayModeBar: false, displaylogo: false, scrollZoom: true, doubleClick: false };
      await this.Plotly.react(this.plot, [this.trace()], this.layout(), config);
    }
    if (this.solid) await this.settled();
    else await nextFrame();
    this.sketched = false;
    this.relocate();
    this.view.drawn();
  }

  // Scene cameras are known only once a frame is drawn.
  async settled() {
    for (let frame = 0; frame < 3; frame++) await nextFrame();
  }

  sortGreyFirst() {
    const { greyed } = this.view;
    const rows = [...this.order.keys()];
    this.order.set([...rows.filter(greyed), ...rows.filter((row) => !greyed(row))]);
  }

  trace() {
    const trace = { mode: "markers", hoverinfo: "skip", marker: this.marker(), x: this.axis(0), y: this.axis(1) };
    if (!this.solid) return { ...trace, type: this.webgl ? "scattergl" : "scatter" };
    return { ...trace, type: "scatter3d", z: this.axis(2) };
  }

  marker() {
    const { css, greyed, ink } = this.view;
    const color = Array.from(this.order, (row) => (greyed(row) ? ink.grey : css[row]));
    const size = this.dotSize();
    const line = size >= 6 && !this.solid ? { width: 0.8, color: ink.dotEdge } : { width: 0 };
    return { color, size: this.solid ? size * 0.6 : size, opacity: this.solid ? 1 : 0.9, line };
  }

  dotSize() {
    const area = this.width * this.height;
    return Math.min(11, Math.max(3.2, Math.sqrt(area / this.data.count) * 0.36));
  }

  layout() {
    const layout = {
      autosize: true, margin: { l: 0, r: 0, t: 0, b: 0 }, showlegend: false, hovermode: false,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", dragmode: "pan",
      font: { family: "system-ui, sans-serif" }, uirevision: `${this.algorithm}-${this.dimensions}-${this.homes}`,
    };
    if (this.solid) return { ...layout, dragmode: "orbit", scene: this.scene() };
    const [x, y] = this.homeRanges();
    this.homeView = [x, y].join();
    const axis = { visible: false, autorange: false, fixedrange: false };
    return { ...layout, xaxis: { ...axis, range: x }, yaxis: { ...axis, range: y } };
  }

  scene() {
    const { ink } = this.view;
    const axis = {
      title: { text: "" }, showticklabels: false, showbackground: false, gridcolor: ink.grid, zeroline: false,
      showspikes: false, showline: true, linecolor: ink.grid, ticks: "",
    };
    return {
      xaxis: axis, yaxis: axis, zaxis: axis, aspectmode: "cube", uirevision: "camera",
      camera: this.homeCamera(), dragmode: "orbit",
    };
  }

  // Far enough away that the cube fits into a pane that is higher than wide.
  homeCamera() {
    const away = 1.02 * Math.max(1, this.height / (this.width || 1)) ** 0.8;
    return { eye: { x: 1.3 * away, y: 1.3 * away, z: 0.8 * away }, center: { x: 0, y: 0, z: -0.06 } };
  }

  // Ranges that show every dot. PCA keeps one scale along both axes; elsewhere distances far apart mean little, and
  // the dots may stretch to fill the pane.
  homeRanges() {
    const points = this.coordinates();
    const bounds = [[Infinity, -Infinity], [Infinity, -Infinity]];
    points.forEach((value, i) => {
      const bound = bounds[i % 2];
      if (value < bound[0]) bound[0] = value;
      if (value > bound[1]) bound[1] = value;
    });
    const sizes = [this.width || 1, this.height || 1];
    const free = sizes.map((size, d) => Math.max(1, size - 2 * MARGIN_PX - (d ? BARS_PX : 0)));
    const unitsPerPx = bounds.map(([low, high], d) => (high - low || 1) / free[d]);
    const stretch = this.algorithm === "PCA" ? 1 : MOST_STRETCH;
    return bounds.map(([low, high], d) => {
      const scale = Math.max(unitsPerPx[d], Math.max(...unitsPerPx) / stretch);
      const middle = (low + high) / 2 + (d ? (scale * (BARS_PX - MARGIN_PX)) / 4 : 0); // tools above, a caption below
      return [middle - (scale * sizes[d]) / 2, middle + (scale * sizes[d]) / 2];
    });
  }

  reset() {
    this.camera = { turn: 0.7, lift: 0.45, distance: 1 };
    if (this.canvas3d) return this.relocate();
    if (!this.Plotly) return;
    const [x, y] = this.solid ? [] : this.homeRanges();
    this.homeView = [x, y].join();
    const change = this.solid ? { "scene.camera": this.homeCamera() } : { "xaxis.range": x, "yaxis.range": y };
    return this.Plotly.relayout(this.plot, change).then(() => this.follow());
  }

  zoom(factor) {
    if (this.canvas3d) {
      this.camera.distance = Math.min(4, Math.max(0.3, this.camera.distance / factor));
      return this.relocate();
    }
    if (!this.Plotly) return;
    if (this.solid) {
      const eye = { ...this.plot._fullLayout.scene.camera.eye };
      for (const side of ["x", "y", "z"]) eye[side] /= factor;
      return this.Plotly.relayout(this.plot, { "scene.camera.eye": eye }).then(() => this.follow());
    }
    const { xaxis, yaxis } = this.plot._fullLayout;
    const zoomed = ({ range: [low, high] }) => {
      const [middle, half] = [(low + high) / 2, (high - low) / 2 / factor];
      return [middle - half, middle + half];
    };
    return this.Plotly.relayout(this.plot, { "xaxis.range": zoomed(xaxis), "yaxis.range": zoomed(yaxis) })
      .then(() => this.follow());
  }

  recolour() {
    if (!this.algorithm) return;
    if (this.Plotly && !this.canvas3d) return this.render();
    this.sortGreyFirst();
    return this.drawMarks();
  }

  layOut() {
    if (!this.algorithm || !this.width || this.moving) return;
    if (this.canvas3d || this.sketched) return this.relocate();
    if (!this.plot._fullLayout) return;
    const wasHome = !this.solid && this.atHome();
    this.Plotly.Plots.resize(this.plot).then(() => (wasHome ? this.reset() : this.relocate()));
  }

  // Whether the dots are as they were first shown, neither moved nor zoomed.
  atHome() {
    const { xaxis, yaxis } = this.plot._fullLayout;
    return [xaxis.range, yaxis.range].join() === this.homeView;
  }

  // --- where each dot is on the screen ---

  locate() {
    if (this.canvas3d) this.positions = this.locateOnCanvas();
    else if (this.sketched) this.positions = this.locateAtHome();
    else this.positions = this.solid ? this.locateInScene() : this.locateOnAxes(this.plot._fullLayout);
  }

  relocate() {
    this.locate();
    this.drawMarks();
  }

  // Follow Plotly while it pans, zooms or turns (its wheel and camera glide on for a moment).
  follow() {
    this.followUntil = performance.now() + 450;
    if (this.following || this.moving || !this.algorithm || this.canvas3d) return;
    const step = () => {
      if (this.viewChanged()) this.relocate();
      this.following = performance.now() < this.followUntil ? requestAnimationFrame(step) : 0;
    };
    this.following = requestAnimationFrame(step);
  }

  viewChanged() {
    const layout = this.plot._fullLayout;
    if (!layout) return false;
    const scene = this.sceneCamera();
    const now = scene ? [...scene.view, ...scene.projection].join() : [layout.xaxis?.range, layout.yaxis?.range].join();
    if (now === this.lastView) return false;
    this.lastView = now;
    return true;
  }

  sceneCamera() {
    return this.solid ? this.plot._fullLayout?.scene?._scene?.glplot?.cameraParams : null;
  }

  locateOnAxes({ xaxis, yaxis }) {
    const points = this.coordinates();
    const result = new Float32Array(points.length);
    const [scaleX, scaleY] = [xaxis, yaxis].map(({ range, _length }) => _length / (range[1] - range[0]));
    for (let at = 0; at < points.length; at += 2) {
      result[at] = xaxis._offset + (points[at] - xaxis.range[0]) * scaleX;
      result[at + 1] = yaxis._offset + (yaxis.range[1] - points[at + 1]) * scaleY;
    }
    return result;
  }

  locateInScene() {
    const camera = this.sceneCamera();
    const points = this.coordinates();
    const result = new Float32Array((2 * points.length) / 3).fill(NaN);
    if (!camera) return result;
    const scale = this.plot._fullLayout.scene._scene.dataScale;
    const matrix = multiplied(camera.projection, multiplied(camera.view, camera.model));
    for (let row = 0; row < points.length / 3; row++) {
      const [x, y, z] = [0, 1, 2].map((d) => points[3 * row + d] * scale[d]);
      const [right, up, , w] = [0, 1, 2, 3].map((i) => matrix[i] * x + matrix[4 + i] * y + matrix[8 + i] * z + matrix[12 + i]);
      if (w <= 0) continue;
      result[2 * row] = ((right / w + 1) / 2) * this.width;
      result[2 * row + 1] = ((1 - up / w) / 2) * this.height;
    }
    return result;
  }

  // --- 3-D without WebGL: the same dots on the canvas, turned by dragging ---

  locateOnCanvas() {
    const points = this.coordinates();
    const result = new Float32Array((2 * points.length) / 3);
    const { turn, lift, distance } = this.camera;
    const [cosTurn, sinTurn, cosLift, sinLift] = [Math.cos(turn), Math.sin(turn), Math.cos(lift), Math.sin(lift)];
    const size = Math.min(this.width, this.height) / distance;
    this.depth = new Float32Array(points.length / 3);
    for (let row = 0; row < this.depth.length; row++) {
      const [x, y, z] = [0, 1, 2].map((d) => points[3 * row + d] - 0.5);
      const [across, deep] = [x * cosTurn - y * sinTurn, x * sinTurn + y * cosTurn];
      const far = deep * cosLift - z * sinLift;
      const near = 2.4 / (2.4 + far);
      result[2 * row] = this.width / 2 + across * size * near * 0.8;
      result[2 * row + 1] = this.height / 2 - (z * cosLift + deep * sinLift) * size * near * 0.8;
      this.depth[row] = far;
    }
    return result;
  }

  dragged(event, [x, y]) {
    if (!this.canvas3d || this.tool !== "pan") return;
    const last = this.dragAt ?? [x, y];
    this.camera.turn += (x - last[0]) * 0.008;
    this.camera.lift = Math.min(1.5, Math.max(-1.5, this.camera.lift + (y - last[1]) * 0.008));
    this.dragAt = [x, y];
    this.relocate();
  }

  onUp(event) {
    this.dragAt = null;
    super.onUp(event);
  }

  onWheel(event) {
    if (!this.canvas3d) return;
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY * 0.001));
  }

  drawUnder(context) {
    if (this.canvas3d && this.depth) {
      const rows = [...this.depth.keys()].sort((a, b) => this.depth[b] - this.depth[a]);
      this.drawDots(context, this.positions, rows);
    } else if (this.sketched) {
      this.drawDots(context, this.positions, this.order, true);
    }
    if (this.view.state.dots === "pictures") this.drawPictures(context);
  }

  drawDots(context, positions, rows, round = rows.length <= ROUND_DOTS) {
    const { css, greyed, ink } = this.view;
    const size = this.dotSize();
    for (const row of rows) {
      const [x, y] = [positions[2 * row], positions[2 * row + 1]];
      context.fillStyle = greyed(row) ? ink.grey : css[row];
      if (!round) context.fillRect(x - size / 2, y - size / 2, size, size);
      else {
        context.beginPath();
        context.arc(x, y, size / 2, 0, 2 * Math.PI);
        context.fill();
      }
    }
  }

  // Tiles in place of dots, as many as fit without hiding each other.
  drawPictures(context) {
    const side = Math.round(Math.min(44, Math.max(24, Math.sqrt((this.width * this.height) / this.data.count) * 1.3)));
    const taken = new Set();
    const { css, greyed, pictures } = this.view;
    for (let i = this.order.length - 1; i >= 0; i--) {
      const row = this.order[i];
      const [x, y] = [this.positions[2 * row], this.positions[2 * row + 1]];
      if (!(x > 0 && y > 0 && x < this.width && y < this.height)) continue;
      const cell = `${Math.floor(x / side)},${Math.floor(y / side)}`;
      if (taken.has(cell)) continue;
      taken.add(cell);
      const [left, top] = [Math.floor(x / side) * side, Math.floor(y / side) * side];
      context.globalAlpha = greyed(row) ? 0.22 : 1;
      context.fillStyle = css[row];
      context.fillRect(left + 1, top + 1, side - 2, side - 2);
      pictures.draw(context, row, left + 3, top + 3, side - 6, this.view.state.preview);
    }
    context.globalAlpha = 1;
  }

  // --- from one projection to the next ---

  // Draw the dots where they are and hide Plotly's, which show the next projection as soon as it is ready.
  takeOff(from) {
    this.moving = true;
    this.host.classList.add("moving");
    const context = this.overlay.getContext("2d");
    context.clearRect(0, 0, this.width, this.height);
    this.drawDots(context, from, [...this.order]);
  }

  async fly(from, run) {
    const to = this.positions.slice();
    const rows = [...this.order];
    const context = this.overlay.getContext("2d");
    const started = performance.now();
    for (let share = 0; share < 1 && run === this.run;) {
      share = Math.min(1, (performance.now() - started) / TRANSITION_MS);
      const eased = share < 0.5 ? 4 * share ** 3 : 1 - (-2 * share + 2) ** 3 / 2;
      this.positions = to.map((target, i) => mix(Number.isNaN(from[i]) ? target : from[i], target, eased));
      context.clearRect(0, 0, this.width, this.height);
      this.drawDots(context, this.positions, rows);
      await nextFrame();
    }
    if (run !== this.run) return;
    this.moving = false;
    this.host.classList.remove("moving");
    this.relocate();
  }

  async image() {
    const picture = element("canvas");
    fitCanvas(picture, this.width, this.height);
    const context = picture.getContext("2d");
    if (this.Plotly && !this.canvas3d) {
      const size = { format: "png", width: this.width, height: this.height, scale: 2 };
      context.drawImage(await loadedImage(await this.Plotly.toImage(this.plot, size)), 0, 0, this.width, this.height);
    }
    context.drawImage(this.overlay, 0, 0, this.width, this.height);
    return picture;
  }
}

function dequantised({ points, range }, dimensions) {
  const values = arrayOf(points);
  const widest = Math.max(...range.map(([low, high]) => high - low)) || 1;
  if (dimensions === 3) return Float32Array.from(values, (value) => value / 65535);
  return Float32Array.from(values, (value, i) => {
    const [low, high] = range[i % dimensions];
    return ((value / 65535) * (high - low)) / widest;
  });
}

// Product of two 4 x 4 matrices, columns first as WebGL has them.
function multiplied(a, b) {
  return Array.from({ length: 16 }, (_, i) => {
    const [row, column] = [i % 4, Math.floor(i / 4)];
    return [0, 1, 2, 3].reduce((sum, k) => sum + a[row + 4 * k] * b[k + 4 * column], 0);
  });
}

function hasWebgl() {
  const context = element("canvas").getContext("webgl");
  context?.getExtension("WEBGL_lose_context")?.loseContext();
  return Boolean(context);
}

function nextFrame() {
  return new Promise((resolve) => requestAnimationFrame(resolve));
}

// When what was drawn has come onto the screen.
function painted() {
  return new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
}

function loadedImage(source) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error("a picture could not be read"));
    image.src = source;
  });
}
