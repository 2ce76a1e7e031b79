// What the panels of a comparison say: the same place in the other city and the way back, or what each encoder finds.

import { button, element, hint } from "./dom.js";
import { neighbourPanel, similarPlace } from "./neighbours.js";
import { spread } from "./selection.js";
import { tileButton } from "./tile_button.js";

/** @import { ComparedSide } from "./compared_side.js" */
/** @import { Comparison } from "./comparison.js" */

const PICTURE_PX = 56;
const SELECTED_SHOWN = 12;

/** @param {Comparison} comparison */
export function comparePanel(comparison) {
  return comparison.isCities ? cityPanel(comparison) : encoderPanel(comparison);
}

/** @param {Comparison} comparison */
export function welcome(comparison) {
  const { isCities, names, active, data } = comparison;
  const text = isCities
    ? `Both cities lie in one projection: dots that are close together are similar places, in ${names[0]} or in ${names[1]}. `
      + "Pick a place on either side to find it in the other city."
    : "Both sides show the same tiles, arranged as each encoder sees them. Pick a tile, or draw a lasso around some, and see "
      + "where the other encoder puts them.";
  const agreement = data.agreement === undefined ? null
    : element("p", {}, `On this page, both find the same ${percent(data.agreement)} of the most similar tiles.`);
  return element("section", { class: "welcome", "aria-label": "About this page" },
    element("h2", {}, isCities ? "Where is it like here in the other city?" : "Do two encoders see the same city?"),
    element("p", {}, text), agreement,
    button("Show me a place", () => active.pickRandom(), { class: "button primary" }));
}

// --- two cities ---

/** @param {Comparison} comparison */
function cityPanel(comparison) {
  const { active, passive, where } = comparison;
  const [here, there] = [active, passive].map((side) => comparison.nameOf(side));
  const choice = element("div", { class: "segmented where", role: "group", "aria-label": "Look for similar places in" },
    comparison.sides.map((side) => {
      const [value, name] = [side === active ? /** @type {const} */ ("here") : /** @type {const} */ ("there"), comparison.nameOf(side)];
      return button(`In ${name}`, () => comparison.look(value),
        { class: false, "aria-pressed": String(where === value), "aria-label": `Look in ${name}` });
    }));
  if (where === "here") return element("div", {}, choice, neighbourPanel(active));
  if (active.state.tile < 0) {
    return element("div", {}, choice,
      hint(`Pick a place of ${here} on the map or among the dots. The most similar places of ${there} appear here and on its map.`));
  }
  const { rows, similarities } = comparison.found();
  return element("div", { "data-found": "elsewhere" }, choice, cameFrom(comparison),
    element("h3", {}, `This place in ${there}`),
    element("ol", { class: "neighbours" }, rows.map((row, rank) => similarPlace(active, row, rank, similarities[row],
      { there: passive, pick: () => comparison.follow(passive, row) }))),
    element("p", { class: "note" }, `Click a picture to go there, and to look back for it in ${here}. ${active.data.search_note}`));
}

/**
 * The pair of places, and the way back, after a match was followed.
 * @param {Comparison} comparison
 */
function cameFrom(comparison) {
  const { active, passive } = comparison;
  const { tile } = passive.state;
  if (tile < 0) return null;
  const { rows, similarities } = comparison.found();
  const name = comparison.nameOf(passive);
  const rank = rows.indexOf(tile);
  const back = rank < 0 ? `not among the ${rows.length} most similar places of ${name}`
    : `no. ${rank + 1} of the places of ${name} most similar to this one`;
  return element("div", { class: "came-from", "data-from": passive.tiles.id(tile) },
    tileButton(passive, tile, PICTURE_PX, undefined, () => comparison.activate(passive)),
    element("div", { class: "match" },
      element("div", { class: "match-head" }, element("strong", {}, similarities[tile].toFixed(3)),
        element("span", {}, `to ${passive.words.heading(tile)} in ${name}`)),
      element("span", {}, back),
      button(`Back to ${name}`, () => comparison.activate(passive), { class: "button small" })),
    element("span", { class: "sr-only" }, active.tiles.id(active.state.tile)));
}

/**
 * What is selected in the other city because of the selection here.
 * @param {Comparison} comparison
 */
export function linkedSelection(comparison) {
  const { active, passive, isCities } = comparison;
  if (!isCities || !active.state.selection.size) return null;
  const rows = [...passive.state.selection];
  const [here, there] = [active, passive].map((side) => comparison.nameOf(side));
  return element("section", { class: "selection linked", "aria-label": `Selected in ${there}` },
    element("h3", { "data-linked": rows.length }, `${rows.length.toLocaleString("en")} tiles of ${there} belong to them`),
    element("p", { class: "hint" }, `Their most similar tile of ${here} is selected.`),
    element("div", { class: "results" }, spread(rows, SELECTED_SHOWN).map((row) =>
      tileButton(passive, row, PICTURE_PX, undefined, () => comparison.pick(passive, row)))));
}

// --- two encoders ---

/** @param {Comparison} comparison */
function encoderPanel(comparison) {
  const { sides, active, data } = comparison;
  if (active.state.tile < 0) return hint("Pick a tile on a map or among the dots. What each encoder finds similar appears here.");
  const shared = comparison.sharedNeighbours();
  const { rows, similarities } = active.neighbours();
  return element("div", { "data-found": "encoders" },
    element("h3", { "data-shared": shared.size }, `${shared.size} of the ${rows.length} most similar are the same`),
    element("p", { class: "hint" }, "Blue frames and rings: found by both. Red rings: by one only."
      + (data.agreement === undefined ? "" : ` On this page, both find the same ${percent(data.agreement)} of them.`)),
    element("div", { class: "both-found" }, sides.map((side) => foundBy(comparison, side, shared))),
    element("h3", {}, `Why, for ${comparison.nameOf(active)}`),
    element("ol", { class: "neighbours" }, rows.map((row, rank) => similarPlace(active, row, rank, similarities[row],
      { note: shared.has(row) ? "found by both" : "" }))),
    element("p", { class: "note" }, active.data.search_note));
}

/**
 * @param {Comparison} comparison
 * @param {ComparedSide} side
 * @param {ReadonlySet<number>} shared
 */
function foundBy(comparison, side, shared) {
  const { rows, similarities } = side.neighbours();
  return element("section", { "aria-label": `Found by ${comparison.nameOf(side)}`, "data-by": comparison.sides.indexOf(side) },
    element("h4", {}, comparison.nameOf(side)),
    element("div", { class: "results" }, rows.map((row) => {
      const picture = tileButton(side, row, PICTURE_PX, similarities[row].toFixed(2));
      picture.classList.toggle("shared", shared.has(row));
      if (shared.has(row)) picture.setAttribute("aria-label", `${picture.getAttribute("aria-label")}, found by both`);
      return picture;
    })));
}

/** @param {number} share */
function percent(share) { return `${Math.round(100 * share)} %`; }
