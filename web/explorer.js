// The linked explorer: it owns the state, lets the views and panels follow it, and answers their questions.

import { hashOf, withHash } from "./address.js";
import { AddressBar } from "./address_bar.js";
import { cssColours } from "./colour.js";
import { Colourings } from "./colourings.js";
import { painted } from "./dom.js";
import { EmbeddingView } from "./embedding_view.js";
import { passing } from "./filters.js";
import { Frame } from "./frame.js";
import { HoverCard } from "./hover_card.js";
import { MapView } from "./map_view.js";
import { joinTable } from "./own_columns.js";
import { Panes } from "./panes.js";
import { Pictures } from "./pictures.js";
import { Search, best } from "./search.js";
import { Store, firstState, isProjectionChange } from "./state.js";
import { readTable } from "./table_file.js";
import { Tiles } from "./tiles.js";
import { Words } from "./words.js";

/** @import { Filter, Found, Ink, LatLon, Legend, Marks, Options, OwnRules, PageData, Point, Rgb, Ring, SelectionMode, Slot, State, TileId } from "./types.d.ts" */
/** @import { Changed } from "./state.js" */
/** @import { TileView } from "./tile_view.js" */

const DARK = "(prefers-color-scheme: dark)";
const NUMBERED = 5; // of the similar tiles have their rank beside them
/** @type {Record<keyof Ink, string>} custom properties of explorer.css */
const INK = {
  accent: "--accent", onAccent: "--on-accent", halo: "--halo", greyDot: "--grey-dot", greyTile: "--grey-tile",
  grid: "--grid", dotEdge: "--dot-edge", wash: "--select", text: "--text", card: "--card", faint: "--faint",
  slot: "--slot",
};

export class Explorer {
  /**
   * @param {HTMLElement} root
   * @param {PageData} data
   * @param {Options} options
   */
  constructor(root, data, options) {
    this.root = root;
    this.data = data;
    this.options = options;
    this.stops = new AbortController();
    this.tiles = new Tiles(data);
    this.words = new Words(data, this.tiles);
    this.search = new Search(data);
    this.colourings = new Colourings(data);
    this.pictures = new Pictures(data, this.tiles, () => this.pictureLoaded());
    this.hovered = -1;
    this.colourRun = 0; // counts changes of colours and of what is grey
    this.labelled = false; // the views have labels; they come once the dots are on the screen
    /** @type {Map<string, {key: string, value: any}>} */
    this.answers = new Map();
    /** @type {Uint8Array | null} 1 for each tile that passes the filters; null without filters */
    this.passes = null;
    this.fileMessage = ""; // what became of the last file that was added
    this.card = new HoverCard(this);
    this.store = new Store(this.stateOf(options.start ?? (options.hash === false ? "" : location.hash.slice(1))));
    this.address = options.hash === false ? null : options.address ?? new AddressBar({
      text: () => hashOf(this.state, this.tiles), restore: (text) => this.restore(text), onStep: () => this.frame.markUndo(),
    }, this.stops.signal);
    this.colourings.names = this.state.names;
    this.passes = passing(this.colourings, this.state.filters);
    this.ink = this.applyTheme();
    this.panes = new Panes(this);
    /** @type {Uint8Array} red, green and blue of each tile */
    this.colours = new Uint8Array(0);
    this.css = [""]; // the same as CSS writes it
    /** @type {Legend} */
    this.legend = { kind: "hint", text: "" };
    this.recolour(false);
    this.embedding = new EmbeddingView(this.panes.embedding, this, data, options.plotly);
    this.map = new MapView(this.panes.map, this, data);
    this.frame = options.frame?.(this) ?? new Frame(this).build();
    this.store.listeners.push((changed) => this.update(changed));
    this.measuring = new ResizeObserver(() => this.frame.measureWidth());
    this.listen();
  }

  /** Show everything; resolves when the projection is shown, by Plotly if it is a solid one. */
  async open() {
    for (const view of [this.embedding, this.map]) view.resized();
    this.refresh();
    this.panes.notice.hidden = this.embedding.webgl;
    this.setTool();
    await this.embedding.show(this.state.alg, this.state.dim, { animate: false });
    await painted();
    this.labelled = true;
    this.drawMarks();
  }

  async start() {
    await this.open();
    if (this.stops.signal.aborted) return;
    this.root.dataset.ready = "true";
    performance.mark("loc2vec-ready");
  }

  /** The dots can be seen and answer to the pointer. */
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

  get state() { return this.store.state; }

  /** @param {Partial<State>} change */
  set(change) {
    this.store.set(change);
  }

  /**
   * Let everything follow a change of the state.
   * @param {Changed} changed
   */
  update(changed) {
    const { state } = this;
    if (changed.has("theme")) this.ink = this.applyTheme();
    if (isProjectionChange(changed)) this.embedding.show(state.alg, state.dim);
    if (changed.has("filters")) this.passes = passing(this.colourings, state.filters);
    if (changed.has("names")) this.colourings.names = state.names;
    const bySimilarity = this.colourings.get(state.colour).kind === "similarity";
    if (changed.has("colour") || changed.has("theme") || changed.has("names") || (changed.has("tile") && bySimilarity)) this.recolour();
    else if (changed.has("selection") || changed.has("filters")) this.redraw();
    if (changed.has("tool")) this.setTool();
    if (changed.has("map")) this.map.draw();
    if (changed.has("tile") && state.tile >= 0) this.map.reveal(state.tile);
    this.refresh();
  }

  refresh() {
    delete this.card.node.dataset.tile; // its text depends on the picked tile
    this.fillPanels();
    this.panes.mark();
    this.frame.markControls();
    this.drawMarks();
    this.address?.save();
  }

  /**
   * The dots of the embedding are in other places of the screen.
   * @param {EmbeddingView} _view
   */
  located(_view) {}

  drawMarks() {
    this.embedding.drawMarks();
    this.map.drawMarks();
  }

  fillPanels() {
    this.frame.fillPanels();
  }

  setTool() {
    this.embedding.setTool(this.state.tool);
    this.map.setTool(this.state.tool);
  }

  /** How many steps back the page can go. */
  get steps() { return this.address?.steps ?? 0; }

  undo() {
    this.address?.undo();
  }

  /**
   * The state that an address describes.
   * @param {string} hash without the #
   */
  stateOf(hash) {
    const known = { ...this.data, colourings: [...this.colourings.byKey.values()] }; // with those of added files
    return withHash(hash, firstState(known, this.options.theme), known, this.tiles);
  }

  /**
   * The address was changed by hand, by a link, or by going back or forward.
   * @param {string} hash without the #
   */
  restore(hash) {
    this.set(this.restored(hash));
  }

  /**
   * The state that an address describes, with what is no part of an address as it is now.
   * @param {string} hash without the #
   */
  restored(hash) {
    const { tool, mode } = this.state;
    return { ...this.stateOf(hash), tool, mode };
  }

  listen() {
    const { signal } = this.stops;
    this.measuring.observe(this.root);
    this.root.addEventListener("keydown", () => { this.root.dataset.keys = "on"; }, { signal, capture: true });
    this.root.addEventListener("pointerdown", () => { delete this.root.dataset.keys; }, { signal, capture: true });
    // A page hears its keys wherever the focus is; a part of a page only its own.
    /** @type {EventTarget} */ (this.address ? document : this.root)
      .addEventListener("keydown", (event) => this.onKey(/** @type {KeyboardEvent} */ (event)), { signal });
    this.root.addEventListener("dragover", (event) => {
      if (!this.data.own_columns || !event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      this.root.dataset.dropping = "true";
    }, { signal });
    this.root.addEventListener("dragleave", () => { delete this.root.dataset.dropping; }, { signal });
    this.root.addEventListener("drop", (event) => {
      delete this.root.dataset.dropping;
      if (!this.data.own_columns || !event.dataTransfer?.files.length) return;
      event.preventDefault();
      this.addFiles([...event.dataTransfer.files]);
    }, { signal });
    matchMedia(DARK).addEventListener("change", () => {
      if (this.state.theme === "system") this.update(new Set(["theme"]));
    }, { signal });
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    const isText = event.target instanceof HTMLInputElement && event.target.type === "text";
    if (event.key === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey && !isText) {
      event.preventDefault();
      this.undo();
    }
    if (event.key !== "Escape" || isText) return;
    this.hover(-1, null, null);
    if (this.state.selection.size) this.select([]);
    else this.pick(-1);
  }

  /** The map shows another part of the ground. */
  mapMoved() {}

  // --- pointing, picking, selecting ---

  /**
   * Point at a tile, -1 for none; with a view and a point in it, its card is shown there.
   * @param {number} row
   * @param {TileView | null} view
   * @param {Point | null} point
   */
  hover(row, view, point) {
    if (point && view) this.card.show(row, view, point);
    else this.card.hide();
    if (row === this.hovered) return;
    this.hovered = row;
    this.drawMarks();
  }

  /**
   * @param {number} row
   * @param {TileView} view
   */
  hoverByKey(row, view) {
    const moved = row >= 0 && view.reveal(row);
    this.hover(row, view, moved ? [view.width / 2, view.height / 2] : view.place(row));
    if (row >= 0) this.say(this.describe(row));
  }

  /**
   * Pick a tile, -1 for none.
   * @param {number} row
   * @param {LatLon | null} [_ground] the place that was clicked on the map
   */
  pick(row, _ground) {
    if (row < 0 && this.state.tile < 0) return;
    this.set({ tile: row });
    if (row < 0) return;
    this.map.reveal(row); // also when it was picked before
    this.say(`Picked ${this.describe(row)}`);
  }

  pickRandom() {
    this.pick(Math.floor(Math.random() * this.tiles.count));
  }

  /**
   * @param {number[]} rows
   * @param {SelectionMode} [mode] whether they replace what is selected, are added to it, or taken from it
   */
  select(rows, mode = "new") {
    const selection = new Set(mode === "new" ? rows : this.state.selection);
    if (mode !== "new") for (const row of rows) mode === "add" ? selection.add(row) : selection.delete(row);
    this.set({ selection, tab: selection.size ? "selection" : this.state.tab });
    this.say(selection.size ? `${selection.size} tiles selected` : "Selection cleared");
  }

  /**
   * Show only some tiles in colour; null removes the filter.
   * @param {string} key of a colouring
   * @param {Filter | null} filter
   */
  filter(key, filter) {
    const filters = new Map(this.state.filters);
    if (filter) filters.set(key, filter);
    else filters.delete(key);
    this.set({ filters });
  }

  /** Rows of the tiles that pass the filters. */
  passingRows() {
    return [...this.tiles.centres.keys()].filter((row) => this.passes?.[row] !== 0);
  }

  /**
   * Add the columns of files that somebody dropped or chose; the last good one colours the tiles.
   * @param {File[]} files
   */
  async addFiles(files) {
    for (const file of files) this.showFileMessage((await this.addFile(file, "this page")).message);
  }

  /**
   * @param {File} file
   * @param {string} where the tiles are, for the message that says what became of the file
   */
  async addFile(file, where) {
    try {
      const table = await readTable(file.name, await file.arrayBuffer());
      const stem = file.name.replace(/\.[^.]*$/, "");
      const rules = /** @type {OwnRules} */ (this.data.own_columns);
      const known = [...this.colourings.byKey.values()].flatMap(({ key, column }) => [key, column]);
      const taken = new Set([...known, ...rules.place_columns]);
      const { columns, placed } = joinTable(table, this.tiles, rules,
        (name) => (taken.has(name) ? `${name} (${stem})` : name));
      for (const { colouring, values } of columns) this.colourings.add(colouring, values);
      this.frame.fillColours();
      const colour = columns.find(({ colouring }) => colouring.kind !== "text")?.colouring.key;
      if (colour === this.state.colour) this.recolour();
      else if (colour) this.set({ colour });
      return { added: true, message: `${file.name}: ${columns.length} columns, ${placed.toLocaleString("en")} of `
        + `${table.rows.length.toLocaleString("en")} rows lie on tiles of ${where}.` };
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      return { added: false, message: `${file.name} cannot be used: ${reason}.` };
    }
  }

  /**
   * Say what became of a file.
   * @param {string} message
   */
  showFileMessage(message) {
    this.fileMessage = message;
    this.set({ files: this.state.files + 1, tab: "filter" });
    this.say(message);
  }

  /**
   * Give a category another name: null leaves it as it is, "" restores the first one.
   * @param {string} key of the colouring
   * @param {number} category
   * @param {string | null} name
   */
  rename(key, category, name) {
    const names = new Map(this.state.names);
    if (name) names.set(`${key}:${category}`, name);
    else if (name === "") names.delete(`${key}:${category}`);
    this.set({ names });
    if (name) this.say(`Renamed to ${name}`);
  }

  /**
   * What selecting does: Shift adds, Alt takes away, otherwise what the panel says.
   * @param {MouseEvent} event
   * @returns {SelectionMode}
   */
  selectionMode(event) {
    return event.shiftKey ? "add" : event.altKey ? "remove" : this.state.mode;
  }

  invertSelection() {
    this.select([...this.tiles.centres.keys()].filter((row) => !this.state.selection.has(row)));
  }

  /** @param {string} name */
  saveSelection(name) {
    this.set({ saved: new Map(this.state.saved).set(name, this.state.selection) });
    this.say(`Kept ${name}`);
  }

  /** @param {string} name */
  forgetSelection(name) {
    const saved = new Map(this.state.saved);
    saved.delete(name);
    this.set({ saved });
  }

  /**
   * Put a tile into a slot of arithmetic and walks, -1 to empty it.
   * @param {Slot} slot
   * @param {number} row
   */
  put(slot, row) {
    this.set({ [slot]: row, tab: this.state.tab === "walk" && slot !== "c" ? "walk" : "sum" });
  }

  /**
   * Whether a tile is grey because others are selected.
   * @param {number} row
   */
  isGrey(row) {
    const { selection } = this.state;
    return (selection.size > 0 && !selection.has(row)) || this.passes?.[row] === 0;
  }

  /**
   * @param {number} row
   * @returns {TileId}
   */
  place(row) {
    return { z: this.tiles.zoom, x: this.tiles.x(row), y: this.tiles.y(row) };
  }

  // --- words ---

  /** @param {number} row */
  describe(row) {
    const facts = this.colourings.facts(row).map(({ key, text }) => `${key} ${text}`);
    return [`tile ${this.tiles.id(row)}`, ...this.words.of(row), ...facts].join(", ");
  }

  /**
   * Say something to users of a screen reader.
   * @param {string} text
   */
  say(text) {
    this.frame.status.textContent = text;
  }

  /** Names the projection and says how well it keeps the structure of the vectors. */
  caption() {
    const { alg, dim } = this.state;
    const { trustworthiness, explained } = this.data.projections[`${alg}-${dim}`];
    return [
      `${this.data.algorithms[alg] ?? alg}, ${dim}-D`,
      trustworthiness !== null && `trustworthiness ${trustworthiness.toFixed(2)}`,
      explained && `${(100 * explained.reduce((sum, part) => sum + part, 0)).toFixed(0)} % of the variance`,
    ].filter(Boolean).join(" · ");
  }

  // --- what is found ---

  /**
   * The last answer to a question; every movement of the pointer asks again.
   * @template T
   * @param {string} question
   * @param {number[]} about
   * @param {() => T} answer
   * @returns {T}
   */
  remembered(question, about, answer) {
    const key = about.join();
    const known = this.answers.get(question);
    if (known?.key === key) return known.value;
    const value = answer();
    this.answers.set(question, { key, value });
    return value;
  }

  /**
   * Cosine similarity of every tile to one of them.
   * @param {number} row
   * @returns {Float32Array}
   */
  similarities(row) {
    return this.remembered("similarities", [row], () => this.search.similarities(this.search.vector(row)));
  }

  /**
   * Similarities of the tiles to the picked one; null when none is picked.
   * @returns {Float32Array | null}
   */
  similaritiesToPicked() {
    return this.state.tile < 0 ? null : this.similarities(this.state.tile);
  }

  /** @returns {Found} */
  neighbours() {
    const { tile, km } = this.state;
    return this.remembered("neighbours", [tile, km], () => {
      const similarities = this.similarities(tile);
      /** @param {number} row */
      const allowed = (row) => row !== tile && (!km || this.tiles.km(tile, row) >= km);
      return { similarities, rows: best(similarities, this.data.limits.neighbours, allowed) };
    });
  }

  /** @returns {Found} */
  arithmetic() {
    const { a, b, c } = this.state;
    return this.remembered("arithmetic", [a, b, c], () => {
      const similarities = this.search.similarities(this.search.combine([[a, 1], [b, 1], [c, -1]]));
      const rows = best(similarities, this.data.limits.neighbours, (row) => row !== a && row !== b && row !== c);
      return { similarities, rows };
    });
  }

  walk() {
    const { a, b } = this.state;
    return this.remembered("walk", [a, b], () => this.search.walk(a, b, this.data.limits.walk_steps));
  }

  /** Kilometres from one corner of the map to the opposite one. */
  get widestKm() {
    return this.remembered("widest", [], () => {
      const { x, y, width, height } = this.map.extent;
      return this.tiles.kmBetween(this.tiles.latlonOnMap(x, y), this.tiles.latlonOnMap(x + width, y + height));
    });
  }

  /**
   * Rings around the tiles that are similar to the picked one.
   * @returns {Ring[]}
   */
  similarRings() {
    return this.state.tile < 0 ? [] : numberedRings(this.neighbours().rows, this.ink.accent);
  }

  /**
   * Rings and the path that both views draw.
   * @returns {Marks}
   */
  marks() {
    const { state, ink } = this;
    const { tab, tile, a, b, c } = state;
    /** @type {Ring[]} */
    const rings = [];
    /** @type {number[]} */
    let path = [];
    /** @param {number} row @param {number} place */
    const numbered = (row, place) => rings.push({ row, radius: 7, colour: ink.accent, label: String(place + 1) });
    if (tab === "alike") rings.push(...this.similarRings());
    if (tab === "sum" && a >= 0 && (b >= 0 || c >= 0)) this.arithmetic().rows.slice(0, NUMBERED).forEach(numbered);
    if (tab === "walk" && a >= 0 && b >= 0 && a !== b) {
      path = this.walk();
      path.slice(1, -1).forEach(numbered);
    }
    /** @type {Slot[]} */
    const slots = tab === "sum" ? ["a", "b", "c"] : tab === "walk" ? ["a", "b"] : [];
    for (const slot of slots) {
      if (state[slot] >= 0) rings.push({ row: state[slot], radius: 9, colour: ink.slot, label: slot.toUpperCase() });
    }
    if (tile >= 0) rings.push({ row: tile, radius: 10, colour: ink.text, width: 2.5 });
    if (this.hovered >= 0) rings.push({ row: this.hovered, radius: 8, colour: ink.text });
    return { rings, path };
  }

  // --- colours and pictures ---

  /** @param {boolean} [draw] */
  recolour(draw = true) {
    const { colours, legend } = this.colourings.paint(this.state.colour, this.dark, () => this.similaritiesToPicked());
    this.colours = colours;
    this.css = cssColours(colours);
    this.legend = legend;
    this.panes.fillLegend(legend);
    if (draw) this.redraw();
  }

  /**
   * Red, green, blue and opacity of each tile's dot.
   * @param {number} opacity from 0 to 1
   * @param {Rgb} grey those of a grey one, its opacity from 0 to 1
   */
  rgba(opacity, grey) {
    const found = new Uint8Array(4 * this.tiles.count);
    for (let row = 0; row < this.tiles.count; row++) {
      const isGrey = this.isGrey(row);
      for (let part = 0; part < 3; part++) found[4 * row + part] = isGrey ? grey[part] : this.colours[3 * row + part];
      found[4 * row + 3] = 255 * (isGrey ? grey[3] : opacity);
    }
    return found;
  }

  redraw() {
    this.colourRun++;
    this.embedding.recolour();
    this.map.draw();
  }

  /** More pictures can be drawn. */
  pictureLoaded() {
    this.pictures.drawWaiting();
    this.map.draw();
    if (this.state.dots === "pictures") this.embedding.drawMarks();
  }

  get dark() {
    const { theme } = this.state;
    return theme === "system" ? matchMedia(DARK).matches : theme === "dark";
  }

  /** Switch the style sheet to the theme; returns its colours for what is drawn on canvases. */
  applyTheme() {
    this.root.classList.add("loc2vec");
    this.root.dataset.theme = this.dark ? "dark" : "light";
    const style = getComputedStyle(this.root);
    const ink = Object.entries(INK).map(([name, property]) => [name, style.getPropertyValue(property).trim()]);
    return /** @type {Ink} */ (Object.fromEntries(ink));
  }
}

/**
 * Rings around what was found; the first few have their rank beside them.
 * @param {number[]} rows best first
 * @param {string} colour
 * @returns {Ring[]}
 */
export function numberedRings(rows, colour) {
  return rows.map((row, rank) => ({ row, radius: 7, colour, label: rank < NUMBERED ? String(rank + 1) : "", width: 1.5 }));
}
