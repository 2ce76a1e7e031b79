// mount(root, data, options): the linked explorer inside `root`. It keeps nothing outside it but the address's hash.
//
// options: plotly (gives a promise of Plotly; called once the first dots are drawn);
//          hash (keep the state in the address, default true); theme ("light", "dark" or "system");
//          onPick({z, x, y} | null), onSelect([{z, x, y}]), onPoint({lat, lon}) for clicks on the map;
//          state: a hash to start from, such as "alg=UMAP&dim=3".
// Returns {update(data), set(state), state(), destroy()}.

const NAMES = { PCA: "PCA", TSNE: "t-SNE", UMAP: "UMAP" };
const TABS = [["alike", "Alike"], ["sum", "A + B − C"], ["walk", "Walk"], ["selection", "Selection"]];
const TOOLS = [["pan", "Move", "Drag to move, scroll to zoom"], ["box", "Box", "Drag a box round tiles to select them"],
  ["lasso", "Lasso", "Draw round tiles to select them"]];
const INK = {
  light: { accent: "#0b6e7f", onAccent: "#ffffff", halo: "rgba(255,255,255,.95)", grey: "rgba(165,162,155,.42)", greyMap: "#8b8983",
    grid: "#dcd9d2", dotEdge: "rgba(255,255,255,.85)", wash: "rgba(11,110,127,.12)", text: "#1e2327", card: "#fffefb", faint: "#6a6f73" },
  dark: { accent: "#5fd0df", onAccent: "#08262b", halo: "rgba(10,14,18,.9)", grey: "rgba(128,134,140,.35)", greyMap: "#3d434a",
    grid: "#343c44", dotEdge: "rgba(18,22,27,.7)", wash: "rgba(95,208,223,.14)", text: "#e9ebec", card: "#1a2026", faint: "#9aa3aa" },
};
const SLOTS = ["tile", "a", "b", "c"];
const RESULTS = 12;

class Explorer {
  constructor(root, data, options) {
    Object.assign(this, { root, data, options });
    this.stops = new AbortController();
    this.waiting = new Map();
    this.tiles = new Tiles(data);
    this.search = new Search(data);
    this.colouring = new Colouring(data, this.tiles);
    this.pictures = new Pictures(data, this.tiles, () => this.pictureLoaded());
    this.selection = new Set();
    this.hovered = -1;
    this.widestKm = this.farthest();
    this.greyed = (row) => this.selection.size > 0 && !this.selection.has(row);
    this.clusterName = (row) => data.clusters[this.tiles.cluster[row]]?.name ?? "";
    this.state = this.startState();
    this.applyTheme();
    this.build();
    this.recolour(false);
    this.embedding = new EmbeddingPane(this.parts.embedding, this, data, options.plotly);
    this.map = new MapPane(this.parts.map, this, data);
    this.listen();
  }

  async start() {
    const { embedding, map } = this;
    this.parts.embedding.classList.toggle("pictured", this.state.dots === "pictures");
    for (const pane of [embedding, map]) pane.resized();
    this.refresh();
    this.sayFallback();
    this.setTool(this.state.tool);
    await embedding.show(this.state.alg, this.state.dim, { animate: false });
    if (this.stops.signal.aborted) return;
    this.root.dataset.ready = "true";
    performance.mark("loc2vec-ready");
  }

  // The dots are there and answer to the pointer; `ready` says that Plotly moves them, too.
  drawn() {
    if (this.root.dataset.drawn) return;
    this.root.dataset.drawn = "true";
    performance.mark("loc2vec-first-draw");
  }

  destroy() {
    this.stops.abort();
    this.measuring.disconnect();
    this.embedding.destroy();
    this.map.destroy();
    this.root.replaceChildren();
  }

  // --- state ---

  startState() {
    const algorithms = Object.keys(this.data.projections);
    const [alg, dim] = (algorithms.find((name) => name === "UMAP-2") ?? algorithms[0]).split("-");
    const state = {
      alg, dim: Number(dim), colour: "layer", tile: -1, a: -1, b: -1, c: -1, km: 0, tab: "alike", tool: "pan", dots: "dots",
      preview: "composite", map: "coloured", theme: this.options.theme ?? "system", layers: (1 << this.tiles.layers.length) - 1,
    };
    const hash = this.options.state ?? (this.options.hash === false ? "" : location.hash.slice(1));
    return this.withHash(state, hash);
  }

  // The address may hold anything: only what makes sense here is taken from it.
  withHash(state, hash) {
    const given = new URLSearchParams(hash);
    const choose = (name, allowed) => { if (allowed.includes(given.get(name))) state[name] = given.get(name); };
    choose("colour", COLOURINGS.map(([kind]) => kind));
    choose("tab", TABS.map(([tab]) => tab));
    choose("theme", ["light", "dark", "system"]);
    choose("dots", ["dots", "pictures"]);
    choose("preview", ["composite", "layer"]);
    choose("map", ["coloured", "plain"]);
    const wanted = `${given.get("alg") ?? state.alg}-${given.get("dim") ?? state.dim}`;
    if (wanted in this.data.projections) [state.alg, state.dim] = [wanted.split("-")[0], Number(wanted.split("-")[1])];
    for (const slot of SLOTS) if (given.get(slot)) state[slot] = this.tiles.rowOfId(given.get(slot));
    const km = Number(given.get("km"));
    if (km >= 0 && km <= 1000) state.km = km;
    if (/^[0-9a-f]{1,3}$/.test(given.get("layers") ?? "")) state.layers = parseInt(given.get("layers"), 16);
    this.selection = new Set(given.get("sel") ? this.unpackSelection(given.get("sel")) : []);
    return state;
  }

  hash() {
    const { state } = this;
    const out = new URLSearchParams({ alg: state.alg, dim: state.dim, colour: state.colour });
    for (const slot of SLOTS) if (state[slot] >= 0) out.set(slot, this.tiles.id(state[slot]));
    const plain = { tab: "alike", theme: "system", dots: "dots", preview: "composite", map: "coloured", km: 0 };
    for (const [name, usual] of Object.entries(plain)) if (state[name] !== usual) out.set(name, state[name]);
    if (state.layers !== (1 << this.tiles.layers.length) - 1) out.set("layers", state.layers.toString(16));
    if (this.selection.size) out.set("sel", this.packSelection());
    return out.toString().replaceAll("%2F", "/");
  }

  // Selected tiles as the bits of the rectangle that holds them: x,y,width,bits. Rows mean nothing in another file.
  packSelection() {
    const rows = [...this.selection];
    const [xs, ys] = [rows.map((row) => this.tiles.x(row)), rows.map((row) => this.tiles.y(row))];
    const [left, top] = [xs.reduce((a, b) => Math.min(a, b)), ys.reduce((a, b) => Math.min(a, b))];
    const width = xs.reduce((a, b) => Math.max(a, b)) - left + 1;
    const height = ys.reduce((a, b) => Math.max(a, b)) - top + 1;
    const bytes = new Uint8Array(Math.ceil((width * height) / 8));
    rows.forEach((_, i) => {
      const bit = (ys[i] - top) * width + xs[i] - left;
      bytes[bit >> 3] |= 1 << (bit & 7);
    });
    const bits = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
    return `${left}.${top}.${width}.${bits.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "")}`;
  }

  unpackSelection(packed) {
    const [, left, top, width, bits] = /^(\d+)\.(\d+)\.(\d+)\.([\w-]*)$/.exec(packed) ?? [];
    if (!bits || !Number(width)) return [];
    const bytes = bytesOf(bits.replaceAll("-", "+").replaceAll("_", "/").padEnd(Math.ceil(bits.length / 4) * 4, "="));
    const rows = [];
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      if (!((bytes[bit >> 3] >> (bit & 7)) & 1)) continue;
      const row = this.tiles.rowAt(Number(left) + (bit % width), Number(top) + Math.floor(bit / width));
      if (row >= 0) rows.push(row);
    }
    return rows;
  }

  saveHash() {
    if (this.options.hash === false) return;
    clearTimeout(this.saving);
    this.saving = setTimeout(() => {
      this.lastHash = `#${this.hash()}`;
      history.replaceState(history.state, "", this.lastHash);
    }, 60);
  }

  set(change) {
    const before = { ...this.state };
    Object.assign(this.state, change);
    const changed = (...names) => names.some((name) => this.state[name] !== before[name]);
    if (changed("theme")) this.applyTheme();
    if (changed("alg", "dim")) this.embedding.show(this.state.alg, this.state.dim);
    if (changed("colour", "theme") || (changed("tile") && this.state.colour === "similarity")) this.recolour();
    if (changed("tool")) this.setTool(this.state.tool);
    if (changed("map")) this.map.draw();
    this.parts.embedding.classList.toggle("pictured", this.state.dots === "pictures");
    if (changed("tile") && this.state.tile >= 0) this.map.show(this.state.tile);
    this.refresh();
  }

  refresh() {
    this.fillPanels();
    this.markControls();
    this.embedding.drawMarks();
    this.map.drawMarks();
    this.saveHash();
  }

  // --- what the panes and panels call ---

  hover(row, pane, point) {
    if (point && pane) this.showCard(row, pane, point);
    else this.parts.card.hidden = true;
    if (row === this.hovered) return;
    this.hovered = row;
    this.embedding.drawMarks();
    this.map.drawMarks();
  }

  hoverByKey(row, pane) {
    this.hover(row, pane, row >= 0 ? pane.place(row) : null);
    if (row >= 0) this.say(this.describe(row));
  }

  pick(row, ground) {
    if (ground && row < 0) this.options.onPoint?.({ lat: ground[0], lon: ground[1] });
    if (row < 0 && ground !== undefined && !ground && this.state.tile < 0) return;
    this.set({ tile: row });
    if (row >= 0) this.say(`Picked ${this.describe(row)}`);
    this.options.onPick?.(row < 0 ? null : this.place(row));
  }

  pickRandom() {
    this.pick(Math.floor(Math.random() * this.tiles.count));
  }

  select(rows, add = false) {
    this.selection = new Set(add ? [...this.selection, ...rows] : rows);
    this.embedding.recolour();
    this.map.draw();
    if (this.selection.size) this.state.tab = "selection";
    this.refresh();
    this.say(this.selection.size ? `${this.selection.size} tiles selected` : "Selection cleared");
    this.options.onSelect?.([...this.selection].map((row) => this.place(row)));
  }

  put(slot, row) {
    this.set({ [slot]: row, tab: this.state.tab === "walk" && slot !== "c" ? "walk" : "sum" });
  }

  place(row) {
    return { z: this.tiles.zoom, x: this.tiles.x(row), y: this.tiles.y(row) };
  }

  describe(row) {
    const { id, layer, zone, density } = this.tiles.facts(row);
    return `tile ${id}, ${layer}, ${zone}, density ${Math.round(density * 100)} percent`;
  }

  // The last answer to a question, kept because every movement of the pointer draws its marks again.
  remembered(question, on, answer) {
    this.answers ??= {};
    const key = on.join();
    if (this.answers[question]?.key !== key) this.answers[question] = { key, value: answer() };
    return this.answers[question].value;
  }

  similarities(row) {
    return this.remembered("similarities", [row], () => this.search.similarities(this.search.vector(row)));
  }

  neighbours() {
    const { tile, km } = this.state;
    const far = (row) => row !== tile && (!km || this.tiles.km(tile, row) >= km);
    return this.remembered("neighbours", [tile, km], () => {
      const similarities = this.similarities(tile);
      return { similarities, rows: Search.best(similarities, RESULTS, far) };
    });
  }

  arithmetic() {
    const { a, b, c } = this.state;
    return this.remembered("arithmetic", [a, b, c], () => {
      const similarities = this.search.similarities(combine(this.search, a, b, c));
      return { similarities, rows: Search.best(similarities, RESULTS, (row) => row !== a && row !== b && row !== c) };
    });
  }

  walk() {
    const { a, b } = this.state;
    return this.remembered("walk", [a, b], () => walkBetween(this.search, a, b, WALK_BETWEEN));
  }

  farthest() {
    const { centres } = this.tiles;
    const [lats, lons] = [0, 1].map((d) => centres.reduce(
      ([low, high], centre) => [Math.min(low, centre[d]), Math.max(high, centre[d])], [Infinity, -Infinity]));
    return kilometres([lats[0], lons[0]], [lats[1], lons[1]]);
  }

  // Rings and the path that both panes draw.
  marks() {
    const { state, ink } = this;
    const rings = [];
    if (state.tab === "alike" && state.tile >= 0) {
      this.neighbours().rows.forEach((row, rank) =>
        rings.push({ row, radius: 7, colour: ink.accent, label: rank < 5 ? String(rank + 1) : "", width: 1.5 }));
    }
    if (state.tab === "sum" && state.a >= 0 && (state.b >= 0 || state.c >= 0)) {
      this.arithmetic().rows.slice(0, 5).forEach((row, rank) => rings.push({ row, radius: 7, colour: ink.accent, label: String(rank + 1) }));
    }
    const path = state.tab === "walk" && state.a >= 0 && state.b >= 0 && state.a !== state.b ? this.walk() : [];
    path.slice(1, -1).forEach((row, step) => rings.push({ row, radius: 7, colour: ink.accent, label: String(step + 1) }));
    if (state.tab === "sum" || state.tab === "walk") {
      for (const slot of state.tab === "sum" ? ["a", "b", "c"] : ["a", "b"]) {
        if (state[slot] >= 0) rings.push({ row: state[slot], radius: 9, colour: ink.text === "#1e2327" ? "#b3261e" : "#ff8a80", label: slot.toUpperCase() });
      }
    }
    if (state.tile >= 0) rings.push({ row: state.tile, radius: 10, colour: ink.text, width: 2.5 });
    if (this.hovered >= 0) rings.push({ row: this.hovered, radius: 8, colour: ink.text, width: 2 });
    return { rings, path };
  }

  recolour(draw = true) {
    const { colour, tile } = this.state;
    const similarities = colour === "similarity" && tile >= 0 ? this.similarities(tile) : null;
    Object.assign(this, this.colouring.of(colour, this.dark, similarities));
    this.css = cssColours(this.colours);
    this.fillLegend();
    if (!draw) return;
    this.embedding.recolour();
    this.map.draw();
  }

  // --- pictures that arrive later ---

  whenPictures(canvas, draw) {
    if (!draw()) this.waiting.set(canvas, draw);
  }

  pictureLoaded() {
    for (const [canvas, draw] of this.waiting) {
      if (draw() || !canvas.isConnected) this.waiting.delete(canvas);
    }
    this.map?.draw();
    if (this.state?.dots === "pictures") this.embedding?.drawMarks();
  }

  // --- theme ---

  get dark() {
    const { theme } = this.state;
    return theme === "system" ? matchMedia("(prefers-color-scheme: dark)").matches : theme === "dark";
  }

  applyTheme() {
    this.root.dataset.theme = this.dark ? "dark" : "light";
    this.root.classList.add("loc2vec");
    this.ink = INK[this.dark ? "dark" : "light"];
  }

  setTool(tool) {
    this.embedding.setTool(tool);
    this.map.setTool(tool);
  }

  say(text) {
    this.parts.status.textContent = text;
  }

  sayFallback() {
    this.parts.notice.hidden = this.embedding.webgl;
  }

  update(data) {
    Object.assign(this.data.projections, data.projections ?? {});
    this.fillSwitches();
    this.refresh();
  }

  listen() {
    const { signal } = this.stops;
    this.measuring = new ResizeObserver(() => this.measureWidth());
    this.measuring.observe(this.root);
    this.root.addEventListener("keydown", () => { this.root.dataset.keys = "on"; }, { signal, capture: true });
    this.root.addEventListener("pointerdown", () => { delete this.root.dataset.keys; }, { signal, capture: true });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      if (this.state.theme !== "system") return;
      this.applyTheme();
      this.recolour();
      this.refresh();
    }, { signal });
    this.root.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      if (this.selection.size) this.select([]);
      else this.pick(-1);
    }, { signal });
    if (this.options.hash !== false) window.addEventListener("hashchange", () => this.followHash(), { signal });
  }

  followHash() {
    if (location.hash === this.lastHash) return;
    const fresh = this.withHash({ ...this.state, tile: -1, a: -1, b: -1, c: -1, km: 0 }, location.hash.slice(1));
    this.set(fresh);
    this.recolour();
    this.fillPanels();
  }
}

function mount(root, data, options) {
  const explorer = new Explorer(root, data, options);
  const ready = explorer.start();
  return {
    ready,
    update: (more) => explorer.update(more),
    set: (state) => explorer.set(explorer.withHash({ ...explorer.state }, new URLSearchParams(state).toString())),
    state: () => explorer.hash(),
    destroy: () => explorer.destroy(),
  };
}
