// The frame of the page around both views: header, switches, tabs; and marking the controls that are on.

import { arithmeticPanel, walkPanel } from "./arithmetic.js";
import { button, element } from "./dom.js";
import { savePicture } from "./exports.js";
import { filterPanel } from "./filter_panel.js";
import { finder } from "./finder.js";
import { inspector } from "./inspector.js";
import { neighbourPanel } from "./neighbours.js";
import { selectionPanel } from "./selection.js";

/** @import { Explorer } from "./explorer.js" */
/** @import { State, Tab } from "./types.d.ts" */

/** @type {[Tab, string, (explorer: Explorer) => Node][]} */
const TABS = [
  ["alike", "Similar", neighbourPanel], ["sum", "A + B − C", arithmeticPanel], ["walk", "Walk", walkPanel],
  ["selection", "Selection", selectionPanel], ["filter", "Filter", filterPanel],
];
const PREVIEWS = /** @type {const} */ ([["composite", "Composite"], ["layer", "Main layer"]]);
const [WIDE_PX, MEDIUM_PX] = [1100, 700];

export class Frame {
  /** @param {Explorer} explorer */
  constructor(explorer) {
    this.explorer = explorer;
    this.root = explorer.root;
    this.switches = element("div", { class: "switches" });
    this.tile = element("div", { class: "tile-slot" });
    this.tab = element("div", { class: "tab-body", role: "tabpanel", "aria-label": "Details", tabindex: "0" });
    this.tabs = element("div", { class: "tabs", role: "tablist", "aria-label": "What to show" });
    this.status = element("div", { class: "sr-only", role: "status", "aria-live": "polite" });
    const recolour = () => this.explorer.set({ colour: this.colour.value });
    this.colour = element("select", { "aria-label": "Colour by", onchange: recolour },
      this.colourOptions());
    this.undo = button("↶", () => explorer.undo(),
      { class: "button icon", "aria-label": "Undo", title: "Undo (Ctrl+Z)", disabled: true });
  }

  build() {
    this.root.replaceChildren(this.header(), this.main(), this.status, ...this.cards());
    this.fillSwitches();
    this.fillTabs();
    this.measureWidth();
    return this;
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
    const { title, subtitle } = this.heading();
    return element("header", { class: "top" },
      element("div", { class: "title" }, element("h1", {}, title), element("p", {}, subtitle)),
      this.finders(),
      element("div", { class: "top-actions" },
        this.explorer.address && this.undo,
        button("Save PNG", () => savePicture(this.explorer), { "aria-label": "Save PNG of the view" }),
        button(element("span", { class: "theme-glyph", "aria-hidden": "true" }),
          () => this.explorer.set({ theme: this.explorer.dark ? "light" : "dark" }),
          { class: "button icon", "aria-label": "Switch between light and dark", title: "Light or dark" })));
  }

  /** @returns {{title: string, subtitle: string}} */
  heading() { return this.explorer.data; }

  /** @returns {HTMLElement[]} */
  finders() { return [finder(this.explorer)]; }

  cards() { return [this.explorer.card.node]; }

  main() {
    const { legend, sections } = this.explorer.panes;
    return element("main", { class: "grid" }, this.bar(legend), sections, this.side());
  }

  /** @param {...Node} more */
  bar(...more) {
    return element("div", { class: "bar-top" }, this.switches,
      element("div", { class: "field" }, element("span", {}, "Colour by"), this.colour, this.namesToggle()), more);
  }

  side() {
    return element("aside", { class: "side", "aria-label": "Tile and similar places" }, this.tile, this.tabs, this.tab);
  }

  namesToggle() {
    const toggle = () => this.explorer.set({ labels: this.explorer.state.labels === "names" ? "none" : "names" });
    return button("Names", toggle,
      { class: "button toggle", "data-set": "labels", "data-value": "names", title: "Show the names of the colours" });
  }

  fillSwitches() {
    const { projections, algorithms } = this.explorer.data;
    const known = Object.keys(projections).map((name) => name.split("-"));
    /** @type {[string, string][]} */
    const names = [...new Set(known.map(([alg]) => alg))].map((alg) => [alg, algorithms[alg] ?? alg]);
    /** @type {[number, string][]} */
    const dimensions = [...new Set(known.map(([, dim]) => Number(dim)))].sort().map((dim) => [dim, `${dim}-D`]);
    this.switches.replaceChildren(
      this.choice("Algorithm", "alg", names, (alg) => this.explorer.set({ alg })),
      this.choice("Dimensions", "dim", dimensions, (dim) => this.explorer.set({ dim })),
      this.choice("Pictures show", "preview", PREVIEWS, (preview) => this.explorer.set({ preview })));
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
    const focused = this.focusedControl();
    this.tile.replaceChildren(this.tilePanel());
    this.tab.replaceChildren(this.panelOf(this.explorer.state.tab));
    if (focused !== null) this.focusControl(focused);
  }

  /** @returns {Node} */
  tilePanel() { return inspector(this.explorer); }

  /**
   * @param {Tab} tab
   * @returns {Node}
   */
  panelOf(tab) {
    const panel = TABS.find(([name]) => name === tab)?.[2] ?? neighbourPanel;
    return panel(this.explorer);
  }

  /**
   * The name of the control of a panel that has the focus, null if none has.
   *
   * Panels are built again after every change; who works with the keyboard keeps their place.
   */
  focusedControl() {
    const active = /** @type {Document | ShadowRoot} */ (this.root.getRootNode()).activeElement;
    return active && (this.tile.contains(active) || this.tab.contains(active)) ? nameOf(active) ?? "" : null;
  }

  /**
   * Focus the control of a panel that has this name, or the panel if no control has it any more.
   * @param {string} name
   */
  focusControl(name) {
    /** @type {NodeListOf<HTMLElement>} */
    const controls = this.root.querySelectorAll(".side button, .side input");
    ([...controls].find((control) => nameOf(control) === name) ?? this.tab).focus({ preventScroll: true });
  }

  markUndo() {
    this.undo.disabled = !this.explorer.steps;
  }

  /** Mark the controls that are on, and switch off projections that the page does not have. */
  markControls() {
    const { state, data } = this.explorer;
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
  }
}

/**
 * What tells a control from the others of its panel.
 * @param {Element} control
 */
function nameOf(control) {
  return /** @type {HTMLElement} */ (control).dataset.layer ?? control.getAttribute("aria-label");
}
