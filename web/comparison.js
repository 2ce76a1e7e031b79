// Two explorers side by side: two cities as one encoder sees them, or one city as two encoders see it. It links them.

import { AddressBar } from "./address_bar.js";
import { hashOf } from "./address.js";
import { arrayOf } from "./arrays.js";
import { ComparedSide } from "./compared_side.js";
import { addressOfSide, joinedAddress } from "./comparison_address.js";
import { ComparisonFrame } from "./comparison_frame.js";
import { best } from "./search.js";

/** @import { CompareData, Found, Options, PageData, PlotlyApi, State } from "./types.d.ts" */
/** @typedef {"there" | "here"} Where in which city similar places are listed */

/** @type {(keyof State)[]} what is the same on both sides */
const SHARED = ["alg", "dim", "colour", "km", "tab", "tool", "dots", "preview", "map", "labels", "theme", "layers", "mode"];
/** @type {Record<CompareData["kind"], (keyof State)[]>} what else is; two encoders show the same tiles */
const ALSO_SHARED = { cities: ["names", "filters"], encoders: ["tile", "a", "b", "c", "selection", "saved"] };

export class Comparison {
  /**
   * @param {HTMLElement} root
   * @param {PageData} data of the first side; `data.compare` has what is different on the second
   * @param {() => Promise<PlotlyApi>} loadPlotly
   */
  constructor(root, data, loadPlotly) {
    this.root = root;
    this.data = /** @type {CompareData} */ (data.compare);
    this.isCities = this.data.kind === "cities";
    this.shared = new Set([...SHARED, ...ALSO_SHARED[this.data.kind]]);
    this.closest = this.data.closest?.map(arrayOf) ?? [];
    /** @type {Where} */
    this.where = "there";
    this.stops = new AbortController();
    this.address = new AddressBar({
      text: () => this.addressText(), restore: (text) => this.restore(text), onStep: () => this.frame.markUndo(),
    }, this.stops.signal);
    /** @type {Promise<PlotlyApi> | null} */
    let loading = null;
    /** @type {ComparisonFrame | null} */
    let frame = null;
    /** @param {number} i @returns {Options} */
    const options = (i) => ({
      plotly: () => (loading ??= loadPlotly()), address: this.address, start: this.addressOf(i), name: this.names[i],
      frame: (side) => (frame ??= new ComparisonFrame(side, this)),
    });
    const sides = [data, { ...data, ...this.data.other }];
    this.names = sides.map(({ title }) => title);
    this.sides = sides.map((side, i) => new ComparedSide(root, side, options(i), this));
    this.active = this.sides[0];
    this.frame = /** @type {ComparisonFrame} */ (/** @type {unknown} */ (frame));
    this.takeView(location.hash.slice(1));
    this.frame.build();
    this.recolourBySimilarity();
  }

  /** Show both sides; resolves when Plotly has drawn all dots. */
  async start() {
    await Promise.all(this.sides.map((side) => side.open()));
    this.root.dataset.ready = "true";
    performance.mark("loc2vec-ready");
  }

  /** @param {ComparedSide} side */
  otherThan(side) { return this.sides[0] === side ? this.sides[1] : this.sides[0]; }

  /** @param {ComparedSide} side */
  nameOf(side) { return this.names[this.sides.indexOf(side)]; }

  get passive() { return this.otherThan(this.active); }

  // --- what both sides share ---

  /**
   * Let the other side follow a change of what both share.
   * @param {ComparedSide} side
   * @param {Partial<State>} change
   */
  share(side, change) {
    const other = this.otherThan(side);
    const shared = Object.entries(change).filter(([name, value]) => {
      const key = /** @type {keyof State} */ (name);
      return this.shared.has(key) && other.state[key] !== value && (key !== "colour" || other.colourings.byKey.has(String(value)));
    });
    if (shared.length) other.adopt(Object.fromEntries(shared));
    if (change.filters && !this.isCities) other.redraw(); // a tile that one side filters out is grey on both
  }

  /**
   * Let the panels show a side; on a phone, its views too.
   * @param {ComparedSide} side
   */
  activate(side) {
    if (side === this.active) return;
    this.active = side;
    this.frame.showActive();
    this.refresh();
  }

  /** @param {Where} where */
  look(where) {
    this.where = where;
    this.refresh();
  }

  /** Draw again what depends on both sides. */
  refresh() {
    this.recolourBySimilarity();
    for (const side of this.sides) side.refresh();
  }

  recolourBySimilarity() {
    for (const side of this.sides) if (side.colourings.get(side.state.colour).kind === "similarity") side.recolour();
  }

  /**
   * Add files to both sides: a file may be about either city, or about both. One message says what became of it.
   * @param {File[]} files
   */
  async addFiles(files) {
    for (const file of files) {
      const places = this.isCities ? this.names : ["this page", "this page"];
      const found = await Promise.all(this.sides.map((side, i) => side.addFile(file, places[i])));
      const good = found.filter(({ added }) => added);
      const message = [...new Set((good.length ? good : found).map((one) => one.message))].join(" ");
      for (const side of this.sides) side.fileMessage = message;
      this.active.showFileMessage(message);
    }
  }

  // --- picking and selecting ---

  /**
   * Pick a tile; the search in the other city starts again from it.
   * @param {ComparedSide} side
   * @param {number} row
   */
  pick(side, row) {
    if (row >= 0) this.activate(side);
    if (this.isCities) this.otherThan(side).adopt({ tile: -1 });
    side.set({ tile: row });
    if (row >= 0) side.map.reveal(row);
    this.refresh();
    if (this.isCities && row >= 0) this.passive.map.reveal(this.found().rows[0]);
  }

  /**
   * Go to a match in the other city; the tile that it was found for stays.
   * @param {ComparedSide} side
   * @param {number} row
   */
  follow(side, row) {
    this.activate(side);
    side.set({ tile: row });
    this.refresh();
    side.say(`Picked ${side.describe(row)}, found for ${this.passive.describe(this.passive.state.tile)}`);
  }

  /**
   * Tiles were selected on one side. In the other city those are selected whose most similar tile is among them.
   * @param {ComparedSide} side
   */
  selected(side) {
    const { selection } = side.state;
    if (selection.size) this.activate(side);
    if (!this.isCities) return;
    const other = this.otherThan(side);
    const closest = this.closest[this.sides.indexOf(other)];
    const rows = [...other.tiles.centres.keys()].filter((row) => selection.has(closest[row]));
    other.adopt({ selection: new Set(rows) });
  }

  // --- what is found ---

  /**
   * The tiles of the other city that are most similar to the picked one.
   * @returns {Found}
   */
  found() {
    const { active, passive } = this;
    const { tile } = active.state;
    return active.remembered("elsewhere", [tile], () => {
      const similarities = passive.search.similarities(active.search.vector(tile));
      return { similarities, rows: best(similarities, passive.data.limits.neighbours, () => true) };
    });
  }

  /** Rows of the nearest tiles that both encoders find. */
  sharedNeighbours() {
    const [first, second] = this.sides.map((side) => side.neighbours().rows);
    return new Set(first.filter((row) => second.includes(row)));
  }

  /**
   * The tile of a side that belongs to the one pointed at on the other side, -1 if there is none.
   * @param {ComparedSide} side
   */
  counterpart(side) {
    const other = this.otherThan(side);
    if (other.hovered < 0) return -1;
    return this.isCities ? this.closest[this.sides.indexOf(other)][other.hovered] : other.hovered;
  }

  // --- the address ---

  /** @param {number} i of a side */
  addressOf(i, text = location.hash.slice(1)) { return i ? addressOfSide(text, this.data.kind) : text; }

  addressText() {
    const [first, second] = this.sides.map((side) => hashOf(side.state, side.tiles));
    return joinedAddress(first, second, this.data.kind, { side: this.active === this.sides[1], where: this.where });
  }

  /** @param {string} text */
  takeView(text) {
    const given = new URLSearchParams(text);
    this.where = given.get("where") === "here" ? "here" : "there";
    this.active = this.sides[given.get("side") === "second" ? 1 : 0];
    this.frame.explorer = this.active;
  }

  /** @param {string} text */
  restore(text) {
    this.takeView(text);
    this.sides.forEach((side, i) => side.adopt(side.restored(this.addressOf(i, text))));
    this.frame.showActive();
    this.refresh();
  }
}
