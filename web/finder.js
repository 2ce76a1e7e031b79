// Finding a tile by its number or by latitude and longitude.

import { button, element } from "./dom.js";
import { formatKm, latlonOfTile, tileOfLatlon } from "./geography.js";

/** @import { Explorer } from "./explorer.js" */

const NEAR_KM = 5; // a place this far outside a small city still finds the nearest tile

/** @param {Explorer} explorer */
export function finder(explorer) {
  const input = element("input", {
    type: "search", placeholder: `${explorer.tiles.zoom}/x/y or latitude, longitude`, "aria-label": "Find a tile",
    autocomplete: "off", spellcheck: "false",
  });
  const message = element("span", { class: "find-message", role: "alert" });
  /** @param {SubmitEvent} event */
  const onsubmit = (event) => {
    event.preventDefault();
    message.textContent = find(explorer, input.value);
  };
  const pickRandom = () => {
    message.textContent = "";
    explorer.pickRandom();
  };
  return element("form", { class: "finder", role: "search", onsubmit }, input,
    element("button", { type: "submit", class: "button" }, "Find"),
    button("Random", pickRandom, { title: "Pick a tile at random" }), message);
}

/**
 * Pick what was typed. Returns a message if there is more to say than the tile shows.
 * @param {Explorer} explorer
 * @param {string} text
 */
function find(explorer, text) {
  const { tiles } = explorer;
  const numbers = text.match(/[-+]?\d+(?:\.\d+)?/g)?.map(Number) ?? [];
  const isPlace = numbers.length === 2 && (/[.,]/.test(text) || numbers.some((value) => value < 0))
    && Math.abs(numbers[0]) <= 90 && Math.abs(numbers[1]) <= 180;
  if (isPlace) return findPlace(explorer, numbers[0], numbers[1]);
  if (numbers.length < 2 || numbers.length > 3 || !numbers.every(Number.isInteger)) {
    const place = tiles.centres[0].map((part) => part.toFixed(4)).join(", ");
    return `Type a tile such as ${tiles.id(0)} or a place such as ${place}`;
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
  explorer.pick(nearest);
  return exact >= 0 ? "" : `This page has no tile there. The nearest one is ${formatKm(km)} away.`;
}
