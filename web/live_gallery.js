// A grid of tile pictures for the live app; a click or Enter on one tells Python its id.
// data: { items: [{ id, picture, title, note, marked }], edge: pixels, label: what the grid shows }

/** @import { Component } from "./types.d.ts" */
/** @typedef {{id: string, picture: string, title: string, note?: string, marked: boolean}} Item */

/** @param {Component<{items: Item[], edge: number, label: string}>} component */
export default function ({ data, parentElement, setTriggerValue }) {
  /** @type {HTMLElement} */
  const grid = parentElement.querySelector(".gallery") ?? parentElement.appendChild(document.createElement("div"));
  grid.className = "gallery";
  grid.setAttribute("role", "group");
  grid.style.setProperty("--edge", `${data.edge}px`);
  grid.setAttribute("aria-label", data.label);
  const { activeElement } = /** @type {Document | ShadowRoot} */ (grid.getRootNode());
  const focused = activeElement instanceof HTMLElement && grid.contains(activeElement) ? activeElement.dataset.id : "";
  grid.replaceChildren(...data.items.map((item) => card(item, () => setTriggerValue("pick", item.id))));
  const cards = /** @type {HTMLElement[]} */ ([...grid.children]);
  cards.find(({ dataset }) => dataset.id === focused)?.focus({ preventScroll: true });
}

/**
 * @param {Item} item
 * @param {() => void} pick
 */
function card(item, pick) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = item.marked ? "card marked" : "card";
  button.dataset.id = item.id;
  if (item.marked) button.setAttribute("aria-current", "true");
  button.addEventListener("click", pick);
  const picture = document.createElement("img");
  picture.src = item.picture;
  picture.alt = `Tile ${item.id}`;
  button.append(picture, line("title", item.title), line("note", item.note));
  return button;
}

/**
 * @param {string} kind
 * @param {string} [text]
 */
function line(kind, text) {
  const span = document.createElement("span");
  span.className = kind;
  span.textContent = text ?? "";
  return span;
}
