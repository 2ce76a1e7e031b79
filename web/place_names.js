// Finding named places of the city by what somebody types, in any script and in spellings that sound alike.

import { arrayOf } from "./arrays.js";
import { isNearly, plain, sounded } from "./fold.js";

/** @import { LatLon, PageData } from "./types.d.ts" */
/** @typedef {{name: string, also: string, kind: string, latlon: LatLon}} Place */

const FUZZY_FROM = 4; // letters; shorter words must be right
const SOUND_FROM = 3; // letters; shorter ones sound like too much
const SOUND_COST = 0.5;
const WORSE_BY_KIND = 0.02; // a street comes before a shop that matches as well
const WORSE_BY_LENGTH = 0.002; // and a short name before a long one

export class PlaceNames {
  /** @param {PageData["names"]} data */
  constructor(data) {
    this.texts = data?.texts ?? [];
    this.kinds = data?.kinds ?? [];
    this.kind = data ? arrayOf(data.kind) : new Uint8Array(0);
    this.latlon = data ? arrayOf(data.latlon) : new Float32Array(0);
    /** @type {{plain: string, sounded: string}[][] | null} made when somebody searches */
    this.folded = null;
  }

  get count() { return this.texts.length; }

  /**
   * The places that match best, best first.
   * @param {string} text
   * @param {number} count
   * @returns {Place[]}
   */
  find(text, count) {
    const [typed, heard] = [plain(text), sounded(text)];
    if (!typed) return [];
    this.folded ??= this.texts.map((lines) => lines.split("\n").map((name) =>
      ({ plain: plain(name), sounded: sounded(name) })));
    /** @type {{at: number, which: number, cost: number}[]} */
    const found = [];
    this.folded.forEach((names, at) => {
      let [which, cost] = [-1, Infinity];
      names.forEach((name, i) => {
        const bySound = heard.length < SOUND_FROM ? Infinity : SOUND_COST + costOf(heard, name.sounded);
        const own = Math.min(costOf(typed, name.plain), bySound);
        if (own < cost) [which, cost] = [i, own];
      });
      if (which < 0) return;
      const length = names[which].plain.length;
      found.push({ at, which, cost: cost + WORSE_BY_KIND * this.kind[at] + WORSE_BY_LENGTH * length });
    });
    return found.sort((a, b) => a.cost - b.cost).slice(0, count).map(({ at, which }) => this.place(at, which));
  }

  /**
   * @param {number} at
   * @param {number} which of its names was found
   * @returns {Place}
   */
  place(at, which) {
    const [name, ...others] = this.texts[at].split("\n");
    return {
      name, also: which ? others[which - 1] : "", kind: this.kinds[this.kind[at]],
      latlon: [this.latlon[2 * at], this.latlon[2 * at + 1]],
    };
  }
}

/**
 * How badly a name matches: 0 the same, below 1 its beginning, below 2 all words begin so, below 3 inside it, below 4
 * nearly; Infinity if not at all.
 * @param {string} typed
 * @param {string} name
 */
function costOf(typed, name) {
  if (!typed || !name) return Infinity;
  if (name === typed) return 0;
  if (name.startsWith(typed)) return 0.5;
  const [words, parts] = [typed.split(" "), name.split(" ")];
  if (words.every((word) => parts.some((part) => part.startsWith(word)))) return 1.5;
  if (name.includes(typed)) return 2.5;
  const near = words.every((word) => parts.some((part) => part.startsWith(word) || (word.length >= FUZZY_FROM
    && [word.length - 1, word.length, word.length + 1].some((length) => isNearly(word, part.slice(0, length))))));
  return near ? 3.5 : Infinity;
}
