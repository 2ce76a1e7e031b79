// The explorer as a part of the live app, for the slots of its page (live_slot.js). Plotly (for 3-D), the city (tiles,
// vectors) and pictures come with components of their own (live_plotly.js, live_city.js, live_pictures.js); the small data
// of the view comes with every rerun.

import { arrayOf } from "./arrays.js";
import { Explorer } from "./explorer.js";
import { Sheets } from "./sheets.js";

/** @import { Component, LatLon, LiveData, LivePictures, Marks, Options, PageData, PlotlyApi, Ring, SheetData, State } from "./types.d.ts" */
/** @import { Sheet } from "./sheets.js" */
/** @import { Tiles } from "./tiles.js" */

/**
 * What a click tells Python: the tile, and the point on the map.
 * @typedef {{tile: {z: number, x: number, y: number} | null, point: {lat: number, lon: number} | null}} Click
 */
/**
 * What is sent to Python: a click, and the tiles that the map shows (left, top, right, bottom; null: all of them).
 * @typedef {{click: (click: Click) => void, moved: (tiles: number[] | null) => void}} Tell
 */
/**
 * One place in the app's page that shows a view.
 * @typedef {HTMLElement & {
 *   wanted?: LiveData | null, starting?: boolean, explorer?: LiveExplorer, shown?: string, gone?: boolean,
 * }} LiveRoot
 */

const SHEETS_AT_ONCE = 6; // in one request
const ASK_AFTER_MS = 30; // so that one request covers what is drawn together
const ANSWER_MS = 15_000; // a request without an answer after this time is repeated
const WAIT_MS = 8;
const MOVED_MS = 350; // after the last movement of the map Python learns what it shows

/** @param {LiveData} live */
function cityOf(live) {
  return window.loc2vecCities?.get(live.city);
}

/**
 * @param {string} city
 * @returns {LivePictures}
 */
function picturesOf(city) {
  return ((window.loc2vecPictures ??= {})[city] ??= new EventTarget());
}

/** Sheets that Python draws when one of their tiles comes into view, the latest request first. */
class LiveSheets extends Sheets {
  /**
   * @param {SheetData} spec
   * @param {Sheets["colours"]} colours
   * @param {() => void} onLoad
   * @param {LivePictures} pictures
   * @param {AbortSignal} signal
   */
  constructor(spec, colours, onLoad, pictures, signal) {
    super(spec, colours, onLoad);
    this.pictures = pictures;
    /** @type {number[]} numbers of sheets, the most recently needed last */
    this.wanted = [];
    /** @type {number[]} numbers in the request that is under way */
    this.asked = [];
    this.timer = 0;
    this.overdue = 0;
    pictures.addEventListener("arrived", () => this.arrived(), { signal });
  }

  /**
   * @param {number} cell
   * @returns {Sheet}
   */
  sheet(cell) {
    const number = Math.floor(cell / this.spec.per_sheet);
    return (this.sheets[number] ??= this.await(number));
  }

  /**
   * @param {number} number
   * @returns {Sheet}
   */
  await(number) {
    const address = this.pictures.sheets?.[number];
    if (address) return this.load(address);
    this.wanted = [...this.wanted.filter((other) => other !== number), number];
    this.timer ||= window.setTimeout(() => this.ask(), ASK_AFTER_MS);
    return { image: new Image(), state: "loading", done: Promise.resolve() };
  }

  ask() {
    this.timer = 0;
    if (this.asked.length || !this.wanted.length || !this.pictures.ask) return;
    this.asked = this.wanted.slice(-SHEETS_AT_ONCE);
    this.pictures.ask(this.asked);
    this.overdue = window.setTimeout(() => this.next(), ANSWER_MS);
  }

  /** Sheets that did not come, or are no longer needed, are asked for again when they are next drawn. */
  arrived() {
    if (this.asked.some((number) => this.pictures.sheets?.[number])) this.next();
    else if (!this.asked.length) this.ask();
  }

  next() {
    clearTimeout(this.overdue);
    for (const number of this.wanted) delete this.sheets[number];
    [this.wanted, this.asked] = [[], []];
    this.onLoad();
  }
}

class LiveExplorer extends Explorer {
  /**
   * @param {HTMLElement} root
   * @param {PageData} data
   * @param {Options} options
   * @param {LiveData} live
   * @param {Tell} tell
   */
  constructor(root, data, options, live, tell) {
    super(root, data, options);
    this.live = live;
    this.tell = tell;
    this.settling = 0;
    this.told = "null"; // what Python last learned of the map
    /** Those to the tile that was picked last; Python computes them. */
    this.known = new Float32Array(data.count).fill(NaN);
    this.receiveSimilarities();
  }

  receiveSimilarities() {
    const { similarities } = this.live;
    if (similarities) this.known = Float32Array.from(arrayOf(similarities), (step) => step * similarities.scale);
  }

  /** Until Python has answered, those to the tile picked before. */
  similarities() { return this.known; }

  mapMoved() {
    if (!this.live?.follows) return;
    clearTimeout(this.settling);
    this.settling = window.setTimeout(() => {
      const { map } = this;
      const [left, top] = map.tileAt([0, 0]);
      const [right, bottom] = map.tileAt([map.width, map.height]);
      const tiles = map.showsAll ? null : [left, top, right, bottom];
      const text = JSON.stringify(tiles);
      if (this.stops.signal.aborted || text === this.told) return;
      this.told = text;
      this.tell.moved(tiles);
    }, MOVED_MS);
  }

  /**
   * A click tells Python the tile and, on the map, the point.
   * @param {number} row
   * @param {LatLon | null} [ground]
   */
  pick(row, ground) {
    this.set({ tile: row });
    if (row >= 0) this.say(`Picked ${this.describe(row)}`);
    this.tell.click({
      tile: row < 0 ? null : this.place(row),
      point: ground ? { lat: ground[0], lon: ground[1] } : null,
    });
  }

  /** The app has its own panels instead of the side column. */
  fillPanels() {}

  /**
   * Ring what Python found, in its order, and the picked tile on top.
   * @returns {Marks}
   */
  marks() {
    const { ink, live, state } = this;
    /** @type {Ring[]} */
    const rings = [];
    const marked = live?.marked.map((id) => this.tiles.rowOfId(id)) ?? []; // there is no `live` yet in the constructor
    marked.forEach((row, rank) => row >= 0 && rings.push(
      { row, radius: 7, colour: ink.accent, label: live.labels[rank] ?? String(rank + 1), width: 1.5 }));
    if (state.tile >= 0) rings.push({ row: state.tile, radius: 10, colour: ink.text, width: 2.5 });
    if (this.hovered >= 0) rings.push({ row: this.hovered, radius: 8, colour: ink.text });
    return { rings, path: live?.path ? marked.filter((row) => row >= 0) : [], pins: live?.pins };
  }
}

/** @param {() => unknown} ready */
async function until(ready) {
  while (!ready()) await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
}

/** Plotly, as soon as its script has run (live_plotly.js). */
async function loadedPlotly() {
  while (!window.Plotly) await new Promise((resolve) => window.addEventListener("plotly", resolve, { once: true }));
  return /** @type {PlotlyApi} */ (window.Plotly);
}

/** @param {LiveData} live */
function projectionName({ projection }) {
  return `${projection.name}-${projection.dimensions}`;
}

/**
 * @param {LiveData} live
 * @param {Tiles} tiles
 * @returns {Partial<State>}
 */
function stateOf(live, tiles) {
  return {
    alg: live.projection.name, dim: live.projection.dimensions, colour: live.colour,
    tile: live.tile ? tiles.rowOfId(live.tile) : -1, theme: live.theme,
  };
}

/**
 * What a visitor chose in a view that another one replaces, for the tiles of the other one.
 * @param {LiveExplorer} before
 * @param {Tiles} tiles
 * @returns {Partial<State>}
 */
function choicesOf(before, tiles) {
  const { tool, dots, map, labels, preview, mode, selection } = before.state;
  const rows = [...selection].map((row) => tiles.rowOfId(before.tiles.id(row))).filter((row) => row >= 0);
  return { tool, dots, map, labels, preview, mode, selection: new Set(rows) };
}

/**
 * Draw the base map as soon as it is there, and sheets of tiles when they are needed.
 * @param {LiveExplorer} explorer
 * @param {LivePictures} pictures
 */
function receivePictures(explorer, pictures) {
  const { signal } = explorer.stops;
  const showMap = () => {
    if (pictures.map && !explorer.map.base.src) explorer.map.base.src = pictures.map;
  };
  explorer.pictures.sprites = new LiveSheets(
    explorer.data.sprites, explorer.pictures.colours, () => explorer.pictureLoaded(), pictures, signal);
  pictures.addEventListener("arrived", showMap, { signal });
  showMap();
}

/**
 * A view whose dots are there; Plotly, which draws them in 3-D, may still be on its way.
 * @param {LiveRoot} root
 * @param {LiveData} live
 * @param {Tell} tell
 * @param {LiveExplorer | null} before what showed the same ground until now: the map stays where it is
 */
async function startView(root, live, tell, before) {
  const city = /** @type {Omit<PageData, "projections">} */ (cityOf(live));
  const data = { ...city, projections: { [projectionName(live)]: live.projection.packed } };
  root.className = `live-root loc2vec live ${live.panes}`;
  const options = { plotly: loadedPlotly, hash: false, theme: live.theme };
  const explorer = new LiveExplorer(root, data, options, live, tell);
  receivePictures(explorer, picturesOf(live.city));
  Object.assign(explorer.state, before ? choicesOf(before, explorer.tiles) : {}, stateOf(live, explorer.tiles));
  explorer.recolour(false);
  explorer.start();
  if (before) {
    explorer.told = before.told;
    explorer.map.showGround(before.map.ground());
  } else if (explorer.state.tile >= 0) explorer.map.reveal(explorer.state.tile);
  return explorer;
}

/**
 * One explorer for each place in the page; a rerun changes it, another city replaces it.
 * @param {LiveRoot} root
 * @param {LiveData} live
 * @param {Tell} tell
 */
async function showView(root, live, tell) {
  root.wanted = live;
  if (root.starting) return;
  root.starting = true;
  try {
    while (root.wanted) {
      const next = root.wanted;
      root.wanted = null;
      const { explorer } = root;
      if (explorer && root.shown === next.city + next.panes) {
        explorer.live = next;
        explorer.data.projections[projectionName(next)] ??= next.projection.packed;
        explorer.receiveSimilarities();
        explorer.set(stateOf(next, explorer.tiles));
        if (next.colour === "similarity") explorer.recolour();
      } else {
        await until(() => root.gone || root.wanted || (cityOf(next) && root.isConnected));
        if (root.gone) return;
        if (root.wanted) continue; // another city was chosen before this one came
        const before = explorer?.live.series === next.series ? explorer : null;
        explorer?.destroy();
        delete root.dataset.drawn;
        delete root.dataset.ready;
        root.explorer = await startView(root, next, tell, before);
        root.shown = next.city + next.panes;
      }
    }
  } finally {
    root.starting = false;
  }
}

/**
 * Show a view in its place in the page. Streamlit calls what this returns after each rerun, and when the place is gone.
 * @param {Component<LiveData>} component
 */
function show({ data, parentElement, setTriggerValue }) {
  /** @type {LiveRoot} */
  let root = /** @type {HTMLElement} */ (parentElement.querySelector(".live-root"));
  if (!root) {
    root = parentElement.appendChild(document.createElement("div"));
    root.className = "live-root";
  }
  showView(root, data, {
    click: (click) => setTriggerValue("click", click),
    moved: (tiles) => setTriggerValue("ground", { tiles }),
  });
  return () => setTimeout(() => {
    if (root.isConnected) return;
    root.explorer?.destroy();
    root.gone = true;
  });
}

export default function () {
  window.loc2vecShow = show;
}
