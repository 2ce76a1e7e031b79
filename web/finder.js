// Finding a tile by the name of a place, by its number, or by latitude and longitude.

import { button, element } from "./dom.js";
import { formatKm, latlonOfTile, tileOfLatlon } from "./geography.js";
import { PlaceNames } from "./place_names.js";

/** @import { Explorer } from "./explorer.js" */
/** @import { Place } from "./place_names.js" */

const NEAR_KM = 5; // a place this far outside a small city still finds the nearest tile
const SHOWN = 8;

/** A text field with a list of the places that match; arrow keys choose, Enter picks, Escape closes. */
class Finder {
  /** @param {Explorer} explorer */
  constructor(explorer) {
    this.explorer = explorer;
    this.names = new PlaceNames(explorer.data.names);
    /** @type {Place[]} */
    this.places = [];
    this.chosen = -1;
    const id = `found-${Math.random().toString(36).slice(2)}`;
    this.input = element("input", {
      type: "text", role: "combobox", "aria-label": "Find a place", "aria-autocomplete": "list", "aria-expanded": "false",
      "aria-controls": id, autocomplete: "off", spellcheck: "false", enterkeyhint: "search",
      placeholder: this.names.count ? "Street, station, district …" : `${explorer.tiles.zoom}/x/y or latitude, longitude`,
      title: `A name, a tile such as ${explorer.tiles.id(0)}, or latitude and longitude`,
      oninput: () => this.search(), onblur: () => this.close(),
      onkeydown: (/** @type {KeyboardEvent} */ event) => this.onKey(event),
    });
    this.list = element("ul", { class: "found", id, role: "listbox", "aria-label": "Places found", hidden: true });
    this.message = element("span", { class: "find-message", role: "alert" });
    const pickRandom = () => {
      this.message.textContent = "";
      explorer.pickRandom();
    };
    this.node = element("form", { class: "finder", role: "search", onsubmit: (/** @type {Event} */ event) => {
      event.preventDefault();
      this.submit();
    } }, this.input, element("button", { type: "submit", class: "button" }, "Find"),
    button("Random", pickRandom, { title: "Pick a tile at random" }), this.list, this.message);
  }

  search() {
    this.message.textContent = "";
    this.places = numbersIn(this.input.value) ? [] : this.names.find(this.input.value, SHOWN);
    this.choose(-1);
    this.list.replaceChildren(...this.places.map(({ name, also, kind }, i) => element("li", {
      role: "option", id: `${this.list.id}-${i}`, "aria-selected": "false", class: "found-place",
      onpointerdown: (/** @type {Event} */ event) => event.preventDefault(), // the text field keeps the focus
      onclick: () => this.pick(i),
    }, element("span", { class: "found-name" }, name, also && element("span", { class: "found-also" }, ` ${also}`)),
    element("span", { class: "found-kind" }, kind))));
    this.list.hidden = !this.places.length;
    this.input.setAttribute("aria-expanded", String(!this.list.hidden));
  }

  /** @param {number} place */
  choose(place) {
    this.chosen = place;
    [...this.list.children].forEach((item, i) => {
      item.setAttribute("aria-selected", String(i === place));
      if (i === place) item.scrollIntoView({ block: "nearest" });
    });
    if (place < 0) this.input.removeAttribute("aria-activedescendant");
    else this.input.setAttribute("aria-activedescendant", `${this.list.id}-${place}`);
  }

  close() {
    this.list.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
    this.choose(-1);
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const count = this.places.length;
    if (event.key === "Escape" && !this.list.hidden) this.close();
    else if (step && !this.list.hidden) this.choose((this.chosen + step + count + (this.chosen < 0 && step < 0 ? 1 : 0)) % count);
    else if (step && count) this.search();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  submit() {
    if (this.list.hidden && !numbersIn(this.input.value)) this.search();
    if (this.places.length) this.pick(Math.max(0, this.chosen));
    else this.message.textContent = find(this.explorer, this.input.value, this.names.count > 0);
  }

  /** @param {number} place */
  pick(place) {
    const { name, kind, latlon } = this.places[place];
    this.input.value = name;
    this.message.textContent = findPlace(this.explorer, ...latlon);
    this.explorer.say(`${name}, ${kind}`);
    this.places = [];
    this.close();
  }
}

/** @param {Explorer} explorer */
export function finder(explorer) {
  return new Finder(explorer).node;
}

/**
 * The two or three numbers of a tile or a place, if the text is nothing else.
 * @param {string} text
 */
function numbersIn(text) {
  return /^[\s\d.,;/+-]*\d[\s,;/]+[-+]?\d[\s\d.,;/+-]*$/.test(text) ? text.match(/[-+]?\d+(?:\.\d+)?/g)?.map(Number) : null;
}

/**
 * Pick what was typed. Returns a message if there is more to say than the tile shows.
 * @param {Explorer} explorer
 * @param {string} text
 * @param {boolean} hasNames
 */
function find(explorer, text, hasNames) {
  const { tiles } = explorer;
  const numbers = numbersIn(text) ?? [];
  const isPlace = numbers.length === 2 && (/[.,]/.test(text) || numbers.some((value) => value < 0))
    && Math.abs(numbers[0]) <= 90 && Math.abs(numbers[1]) <= 180;
  if (isPlace) return findPlace(explorer, numbers[0], numbers[1]);
  if (numbers.length < 2 || numbers.length > 3 || !numbers.every(Number.isInteger)) {
    const place = tiles.centres[0].map((part) => part.toFixed(4)).join(", ");
    return `${hasNames && text.trim() ? "No place of this name. " : ""}Type a tile such as ${tiles.id(0)} or a place such as ${place}`;
  }
  const [x, y] = numbers.slice(-2);
  if (numbers.length === 3 && numbers[0] !== tiles.zoom) {
    return `The tiles here have zoom ${tiles.zoom}, not ${numbers[0]}.`;
  }
  const row = tiles.rowAt(x, y);
  if (row < 0) return findPlace(explorer, ...latlonOfTile(x + 0.5, y + 0.5, tiles.zoom));
  explorer.pick(row);
  return "";
}

/**
 * @param {Explorer} explorer
 * @param {number} lat
 * @param {number} lon
 */
function findPlace(explorer, lat, lon) {
  const { tiles } = explorer;
  const [x, y] = tileOfLatlon(lat, lon, tiles.zoom).map(Math.floor);
  const exact = tiles.rowAt(x, y);
  const [nearest, km] = exact >= 0 ? [exact, 0] : tiles.nearestTo(lat, lon);
  if (!(km <= Math.max(NEAR_KM, explorer.widestKm))) return "That place is far outside this city.";
  explorer.pick(nearest, [lat, lon]);
  return exact >= 0 ? "" : `This page has no tile there. The nearest one is ${formatKm(km)} away.`;
}
