// A + B − C, and the walk from A to B: tiles are put into slots, and the page computes with their vectors.

import { button, element, hint } from "./dom.js";
import { tileButton } from "./tile_button.js";

/** @import { Explorer } from "./explorer.js" */
/** @import { Child, Slot } from "./types.d.ts" */

const PICTURE_PX = 72;

/** @param {Explorer} explorer */
export function arithmeticPanel(explorer) {
  const { a, b, c } = explorer.state;
  const slots = slotRow(explorer, [["a", ""], ["b", "+"], ["c", "−"]]);
  if (a < 0 || (b < 0 && c < 0)) {
    return element("div", {}, slots,
      hint("Finds places like A, with what B has and without what C has. Pick tiles and put them into A, B and C."));
  }
  const { rows, similarities } = explorer.arithmetic();
  return element("div", {}, slots,
    element("h3", {}, ["A", b >= 0 && "+ B", c >= 0 && "− C"].filter(Boolean).join(" "), " is most similar to"),
    element("div", { class: "results", "data-results": "arithmetic" },
      rows.map((row) => tileButton(explorer, row, PICTURE_PX, similarities[row].toFixed(3)))));
}

/** @param {Explorer} explorer */
export function walkPanel(explorer) {
  const { a, b } = explorer.state;
  const slots = slotRow(explorer, [["a", ""], ["b", "→"]]);
  if (a < 0 || b < 0 || a === b) {
    return element("div", {}, slots, hint("Put tiles into A and B to see the tiles on the way from one to the other."));
  }
  const path = explorer.walk();
  /** @param {number} step */
  const name = (step) => (step === 0 ? "A" : step === path.length - 1 ? "B" : String(step));
  return element("div", {}, slots,
    element("ol", { class: "results walk", "data-results": "walk" },
      path.map((row, step) => element("li", {}, tileButton(explorer, row, PICTURE_PX, name(step))))),
    element("p", { class: "note" }, "All steps are equal. Each shows the nearest tile that was not used before."));
}

/**
 * @param {Explorer} explorer
 * @param {[Slot, string][]} slots each with the sign before it
 */
function slotRow(explorer, slots) {
  const { state } = explorer;
  const nonePicked = state.tile < 0;
  return element("div", { class: "slots" }, slots.map(([slot, sign]) => {
    const row = state[slot];
    const name = slot.toUpperCase();
    /** @type {Child} */
    const picture = row >= 0 ? tileButton(explorer, row, PICTURE_PX)
      : button(nonePicked ? "pick a tile" : "use picked", () => explorer.put(slot, state.tile),
        { class: "slot-fill", disabled: nonePicked, "aria-label": `${nonePicked ? "pick a tile for" : "use picked tile as"} ${name}` });
    return [
      sign && element("span", { class: "sign", "aria-hidden": "true" }, sign),
      element("div", { class: `slot${row < 0 ? " open" : ""}`, "data-slot": slot }, picture,
        element("div", { class: "slot-name" }, element("strong", {}, name),
          row >= 0
            && button("×", () => explorer.put(slot, -1), { class: "slot-clear", "aria-label": `Empty ${name}` }))),
    ];
  }));
}
