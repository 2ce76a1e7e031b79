// What one explorer draws in: the embedding and the map with their tools, captions, and the legend of their colours.

import { button, element } from "./dom.js";
import { legendEntries } from "./legend.js";

/** @import { Explorer } from "./explorer.js" */
/** @import { TileView } from "./tile_view.js" */
/** @import { Legend, Tool } from "./types.d.ts" */

/** @type {[Tool, string, string][]} */
const TOOLS = [
  ["pan", "Move", "Drag to move, scroll to zoom"], ["box", "Box", "Drag a box around tiles to select them"],
  ["lasso", "Lasso", "Draw a line around tiles to select them"],
];
const BUTTON_ZOOM = 1.5;

export class Panes {
  /** @param {Explorer} explorer */
  constructor(explorer) {
    this.explorer = explorer;
    const of = explorer.options.name ? `, ${explorer.options.name}` : ""; // so that no two parts of a page sound the same
    this.embedding = viewHost("embedding",
      `Embedding${of}: one dot for each tile. Arrow keys move from dot to dot, Enter picks, plus and minus zoom.`);
    this.map = viewHost("map",
      `City map${of} made of the tiles. Arrow keys move from tile to tile, Enter picks, plus and minus zoom.`);
    this.caption = element("p", { class: "caption",
      title: "Trustworthiness 1: no false neighbours, which are close here and far apart among the vectors" });
    this.legend = element("div", { class: "legend", role: "group", "aria-label": `Legend${of}` });
    this.notice = element("p", { class: "notice", role: "note", hidden: true },
      "WebGL is not available here. The 3-D view is drawn without it, a little more slowly.");
    this.sections = [
      element("section", { class: "pane", "aria-label": `Embedding${of}` }, this.embedding,
        this.tools(`Embedding tools${of}`, () => explorer.embedding,
          button("Pictures", () => explorer.set({ dots: explorer.state.dots === "dots" ? "pictures" : "dots" }),
            { class: "tool wide", "data-set": "dots", "data-value": "pictures", title: "Show tiles instead of dots" })),
        this.caption, this.notice),
      element("section", { class: "pane", "aria-label": `City map${of}` }, this.map,
        this.tools(`Map tools${of}`, () => explorer.map,
          button("Plain", () => explorer.set({ map: explorer.state.map === "plain" ? "coloured" : "plain" }),
            { class: "tool wide", "data-set": "map", "data-value": "plain", title: "Show the map without colours" })),
        element("p", { class: "caption right" }, explorer.data.attribution)),
    ];
  }

  /**
   * @param {string} label
   * @param {() => TileView} view
   * @param {...Node} toggles
   */
  tools(label, view, ...toggles) {
    const tools = TOOLS.map(([tool, name, help]) =>
      button(element("span", { class: "tool-glyph", "aria-hidden": "true" }), () => this.explorer.set({ tool }),
        { class: `tool tool-${tool}`, "data-set": "tool", "data-value": tool, "aria-label": name, title: help }));
    /** @type {[string, string, () => void][]} */
    const zooms = [
      ["+", "Zoom in", () => view().zoom(BUTTON_ZOOM)], ["−", "Zoom out", () => view().zoom(1 / BUTTON_ZOOM)],
      ["⌂", "Show everything", () => view().reset()],
    ];
    return element("div", { class: "tools", role: "toolbar", "aria-label": label },
      element("div", { class: "group" }, tools),
      element("div", { class: "group" }, zooms.map(([glyph, name, act]) =>
        button(glyph, act, { class: "tool", "aria-label": name, title: name }))),
      element("div", { class: "group" }, toggles));
  }

  /** @param {Legend} legend */
  fillLegend(legend) {
    this.legend.replaceChildren(...legendEntries(this.explorer, legend));
    this.legend.dataset.kind = legend.kind;
  }

  /** Say what is shown. */
  mark() {
    const { state, tiles } = this.explorer;
    this.embedding.classList.toggle("pictured", state.dots === "pictures");
    this.caption.textContent = this.explorer.caption();
    this.map.dataset.tile = this.embedding.dataset.tile = state.tile < 0 ? "" : tiles.id(state.tile);
  }
}

/**
 * @param {string} name
 * @param {string} label for screen readers
 */
function viewHost(name, label) {
  return element("div",
    { class: "pane-body", tabindex: "0", role: "application", "data-pane": name, "aria-label": label });
}
