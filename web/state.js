// The state of the page: one plain object, and a list of who wants to know when it changes.

/** @import { PageData, State, Theme } from "./types.d.ts" */
/** @typedef {Set<keyof State>} Changed names of what has changed */

/** @type {(keyof State)[]} */
const PROJECTION = ["alg", "dim"];
export const LONGEST_NAME = 60; // letters that a reader may give a category
const FIRST_PROJECTION = "UMAP-2";

export class Store {
  /** @param {State} state */
  constructor(state) {
    this.state = state;
    /** @type {((changed: Changed) => void)[]} */
    this.listeners = [];
  }

  /**
   * Change some of the state; listeners learn what really changed.
   * @param {Partial<State>} change
   */
  set(change) {
    const names = /** @type {(keyof State)[]} */ (Object.keys(change));
    const changed = new Set(names.filter((name) => change[name] !== this.state[name]));
    Object.assign(this.state, change);
    for (const listener of this.listeners) listener(changed);
  }
}

/**
 * Whether another projection is to be shown.
 * @param {Changed} changed
 */
export function isProjectionChange(changed) {
  return PROJECTION.some((name) => changed.has(name));
}

/**
 * How the page opens.
 * @param {PageData} data
 * @param {Theme} theme
 * @returns {State}
 */
export function firstState(data, theme = "system") {
  const names = Object.keys(data.projections);
  const [alg, dim] = (names.find((name) => name === FIRST_PROJECTION) ?? names[0]).split("-");
  return {
    alg, dim: Number(dim), colour: data.colourings[0].key, tile: -1, a: -1, b: -1, c: -1, km: 0, tab: "alike",
    tool: "pan", dots: "dots", preview: "composite", map: "coloured", labels: "names", names: new Map(), theme, layers: allLayers(data), selection: new Set(),
    filters: new Map(), mode: "new", saved: new Map(), files: 0,
  };
}

/**
 * Every layer of the large picture switched on.
 * @param {{layers: unknown[]}} data
 */
export function allLayers({ layers }) {
  return 2 ** layers.length - 1;
}
