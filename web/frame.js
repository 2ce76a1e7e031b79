// The frame of the page: header, switches, both views, legend, tabs; and marking the controls that are on.

import { arithmeticPanel, walkPanel } from "./arithmetic.js";
import { button, element } from "./dom.js";
import { savePicture } from "./exports.js";
import { filterPanel } from "./filter_panel.js";
import { finder } from "./finder.js";
import { inspector } from "./inspector.js";
import { legendEntries } from "./legend.js";
import { neighbourPanel } from "./neighbours.js";
import { selectionPanel } from "./selection.js";

/** @import { Explorer } from "./explorer.js" */
/** @import { TileView } from "./tile_view.js" */
/** @import { Legend, State, Tab, Tool } from "./types.d.ts" */

/** @type {[Tab, string, (explorer: Explorer) => Node][]} */
const TABS = [
  ["alike", "Similar", neighbourPanel], ["sum", "A + B − C", arithmeticPanel], ["walk", "Walk", walkPanel],
  ["selection", "Selection", selectionPanel], ["filter", "Filter", filterPanel],
];
/** @type {[Tool, string, string][]} */
const TOOLS = [
  ["pan", "Move", "Drag to move, scroll to zoom"], ["box", "Box", "Drag a box around tiles to select them"],
  ["lasso", "Lasso", "Draw a line around tiles to select them"],
];
const PREVIEWS = /** @type {const} */ ([["composite", "Composite"], ["layer", "Main layer"]]);
const BUTTON_ZOOM = 1.5;
const [WIDE_PX, MEDIUM_PX] = [1100, 700];

export class Frame {
  /** @param {Explorer} explorer */
  constructor(explorer) {
    this.explorer = explorer;
    this.root = explorer.root;
    this.embedding = viewHost("embedding",
      "Embedding: one dot for each tile. Arrow keys move from dot to dot, Enter picks, plus and minus zoom.");
    this.map = viewHost("map",
      "City map made of the tiles. Arrow keys move from tile to tile, Enter picks, plus and minus zoom.");
    this.switches = element("div", { class: "switches" });
    this.caption = element("p", { class: "caption" });
    this.legend = element("div", { class: "legend", role: "group", "aria-label": "Legend" });
    this.tile = element("div", { class: "tile-slot" });
    this.tab = element("div", { class: "tab-body", role: "tabpanel", "aria-label": "Details", tabindex: "0" });
    this.tabs = element("div", { class: "tabs", role: "tablist", "aria-label": "What to show" });
    this.status = element("div", { class: "sr-only", role: "status", "aria-live": "polite" });
    this.notice = element("p", { class: "notice", role: "note", hidden: true },
      "WebGL is not available here. Dots are drawn without it, a little more slowly.");
    const recolour = () => explorer.set({ colour: this.colour.value });
    this.colour = element("select", { "aria-label": "Colour by", onchange: recolour },
      this.colourOptions());
    this.undo = button("↶", () => explorer.undo(),
      { class: "button icon", "aria-label": "Undo", title: "Undo (Ctrl+Z)", disabled: true });
    this.root.replaceChildren(this.header(), this.main(), this.status, explorer.card.node);
    this.fillSwitches();
    this.fillTabs();
    this.measureWidth();
  }

  /** The width decides the arrangement; the explorer may be a page or a part of one. */
  measureWidth() {
    const width = this.root.clientWidth;
    this.root.dataset.width = width > WIDE_PX ? "wide" : width > MEDIUM_PX ? "medium" : "narrow";
  }

  colourOptions() {
    return [...this.explorer.colourings.byKey.values()].filter(({ kind }) => kind !== "text")
      .map(({ key, label }) => element("option", { value: key }, label));
  }

  /** Another file was added. */
  fillColours() {
    this.colour.replaceChildren(...this.colourOptions());
  }

  // --- parts that stay ---

  header() {
    const { explorer } = this;
    const { title, subtitle } = explorer.data;
    return element("header", { class: "top" },
      element("div", { class: "title" }, element("h1", {}, title), element("p", {}, subtitle)),
      finder(explorer),
      element("div", { class: "top-actions" },
        explorer.options.hash !== false && this.undo,
        button("Save PNG", () => savePicture(explorer), { "aria-label": "Save PNG of the view" }),
        button(element("span", { class: "theme-glyph", "aria-hidden": "true" }),
          () => explorer.set({ theme: explorer.dark ? "light" : "dark" }),
          { class: "button icon", "aria-label": "Switch between light and dark", title: "Light or dark" })));
  }

  main() {
    const { explorer } = this;
    return element("main", { class: "grid" },
      element("div", { class: "bar-top" }, this.switches,
        element("div", { class: "field" }, element("span", {}, "Colour by"), this.colour, this.namesToggle()), this.legend),
      element("section", { class: "pane", "aria-label": "Embedding" }, this.embedding,
        this.tools("Embedding tools", () => explorer.embedding,
          button("Pictures", () => explorer.set({ dots: explorer.state.dots === "dots" ? "pictures" : "dots" }),
            { class: "tool wide", "data-set": "dots", "data-value": "pictures", title: "Show tiles instead of dots" })),
        this.caption, this.notice),
      element("section", { class: "pane", "aria-label": "City map" }, this.map,
        this.tools("Map tools", () => explorer.map,
          button("Plain", () => explorer.set({ map: explorer.state.map === "plain" ? "coloured" : "plain" }),
            { class: "tool wide", "data-set": "map", "data-value": "plain", title: "Show the map without colours" })),
        element("p", { class: "caption right" }, explorer.data.attribution)),
      element("aside", { class: "side", "aria-label": "Tile and similar places" }, this.tile, this.tabs, this.tab));
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

  namesToggle() {
    const { explorer } = this;
    return button("Names", () => explorer.set({ labels: explorer.state.labels === "names" ? "none" : "names" }),
      { class: "button toggle", "data-set": "labels", "data-value": "names", title: "Show the names of the colours" });
  }

  fillSwitches() {
    const { explorer } = this;
    const { projections, algorithms } = explorer.data;
    const known = Object.keys(projections).map((name) => name.split("-"));
    /** @type {[string, string][]} */
    const names = [...new Set(known.map(([alg]) => alg))].map((alg) => [alg, algorithms[alg] ?? alg]);
    /** @type {[number, string][]} */
    const dimensions = [...new Set(known.map(([, dim]) => Number(dim)))].sort().map((dim) => [dim, `${dim}-D`]);
    this.switches.replaceChildren(
      this.choice("Algorithm", "alg", names, (alg) => explorer.set({ alg })),
      this.choice("Dimensions", "dim", dimensions, (dim) => explorer.set({ dim })),
      this.choice("Pictures show", "preview", PREVIEWS, (preview) => explorer.set({ preview })));
  }

  /**
   * Buttons of which one is on.
   * @template {string | number} T
   * @param {string} label
   * @param {keyof State} name
   * @param {readonly (readonly [T, string])[]} entries
   * @param {(value: T) => void} choose
   */
  choice(label, name, entries, choose) {
    return element("div", { class: "segmented", role: "group", "aria-label": label }, entries.map(([value, text]) =>
      button(text, () => choose(value), { class: false, "data-set": name, "data-value": String(value) })));
  }

  fillTabs() {
    this.tabs.replaceChildren(...TABS.map(([tab, name]) => button(name, () => this.explorer.set({ tab }), {
      class: false, role: "tab", "data-tab": tab,
      onkeydown: (/** @type {KeyboardEvent} */ event) => this.moveTab(event),
    })));
  }

  /** @param {KeyboardEvent} event */
  moveTab(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const at = TABS.findIndex(([tab]) => tab === this.explorer.state.tab);
    this.explorer.set({ tab: TABS[(at + step + TABS.length) % TABS.length][0] });
    /** @type {HTMLElement | null} */ (this.tabs.querySelector('[aria-selected="true"]'))?.focus();
  }

  // --- parts that follow the state ---

  fillPanels() {
    const { explorer } = this;
    const focused = this.focusedControl();
    const panel = TABS.find(([tab]) => tab === explorer.state.tab)?.[2] ?? neighbourPanel;
    this.tile.replaceChildren(inspector(explorer));
    this.tab.replaceChildren(panel(explorer));
    if (focused) this.focusControl(focused);
  }

  /** Panels are built again after every change; who works with the keyboard keeps their place. */
  focusedControl() {
    const active = /** @type {Document | ShadowRoot} */ (this.root.getRootNode()).activeElement;
    return active && (this.tile.contains(active) || this.tab.contains(active)) ? nameOf(active) : null;
  }

  /** @param {string} name */
  focusControl(name) {
    /** @type {NodeListOf<HTMLElement>} */
    const controls = this.root.querySelectorAll(".side button, .side input");
    [...controls].find((control) => nameOf(control) === name)?.focus({ preventScroll: true });
  }

  /** @param {Legend} legend */
  fillLegend(legend) {
    this.legend.replaceChildren(...legendEntries(this.explorer, legend));
    this.legend.dataset.kind = legend.kind;
  }

  markUndo() {
    this.undo.disabled = !this.explorer.steps;
  }

  /** Mark the controls that are on, and switch off projections that the page does not have. */
  markControls() {
    const { state, data, tiles } = this.explorer;
    /** @type {NodeListOf<HTMLButtonElement>} */
    const settings = this.root.querySelectorAll("[data-set]");
    for (const control of settings) {
      const [name, value] = [/** @type {keyof State} */ (control.dataset.set), control.dataset.value];
      control.setAttribute("aria-pressed", String(String(state[name]) === value));
      if (name !== "alg" && name !== "dim") continue;
      const projection = name === "alg" ? `${value}-${state.dim}` : `${state.alg}-${value}`;
      control.disabled = !Object.hasOwn(data.projections, projection);
    }
    /** @type {NodeListOf<HTMLElement>} */
    const tabs = this.root.querySelectorAll("[data-tab]");
    for (const tab of tabs) {
      tab.setAttribute("aria-selected", String(tab.dataset.tab === state.tab));
      tab.tabIndex = tab.dataset.tab === state.tab ? 0 : -1;
    }
    this.colour.value = state.colour;
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

/**
 * What tells a control from the others of its panel.
 * @param {Element} control
 */
function nameOf(control) {
  return /** @type {HTMLElement} */ (control).dataset.layer ?? control.getAttribute("aria-label");
}
