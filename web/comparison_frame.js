// The frame around both sides of a comparison: one header, one bar of switches, a column for each side, and the panels
// of the side that is active.

import { button, element } from "./dom.js";
import { comparePanel, linkedSelection, welcome } from "./comparison_panels.js";
import { finder } from "./finder.js";
import { Frame } from "./frame.js";

/** @import { ComparedSide } from "./compared_side.js" */
/** @import { Comparison } from "./comparison.js" */
/** @import { Explorer } from "./explorer.js" */
/** @import { Tab } from "./types.d.ts" */

export class ComparisonFrame extends Frame {
  /**
   * @param {Explorer} explorer the side that is active first
   * @param {Comparison} comparison
   */
  constructor(explorer, comparison) {
    super(explorer);
    this.comparison = comparison;
    /** @type {HTMLElement[]} */
    this.fields = [];
    /** @type {HTMLButtonElement[]} */
    this.choices = [];
  }

  build() {
    this.root.classList.add("compare");
    this.root.dataset.kind = this.comparison.data.kind;
    super.build();
    this.showActive();
    return this;
  }

  heading() { return this.comparison.data; }

  /** Each city has its own names of places; only the field of the active one is shown. */
  finders() {
    this.fields = this.comparison.sides.map((side) => finder(side));
    return this.fields;
  }

  cards() { return this.comparison.sides.map((side) => side.card.node); }

  main() {
    return element("main", { class: "grid" }, this.bar(), this.heads(), this.comparison.sides.map((side) => this.half(side)),
      this.side());
  }

  /** The name of each side is a button that lets the panel show it. */
  heads() {
    const { names, sides, data } = this.comparison;
    this.choices = sides.map((side, i) => button([element("strong", {}, names[i]), element("span", {}, data.details[i])],
      () => this.comparison.activate(side), { class: "head", title: `Let the panel show ${names[i]}` }));
    return element("div", { class: "heads", role: "group", "aria-label": "The side that the panel shows" }, this.choices);
  }

  /** @param {ComparedSide} side */
  half(side) {
    const isFirst = side === this.comparison.sides[0];
    return element("div", { class: "half", "data-half": isFirst ? "first" : "second" }, side.panes.legend, side.panes.sections);
  }

  /** The active side changed. */
  showActive() {
    const { comparison } = this;
    const { active, sides } = comparison;
    this.explorer = active;
    const at = sides.indexOf(active);
    this.root.dataset.side = at ? "second" : "first";
    const shown = comparison.isCities ? at : 0;
    this.fields.forEach((field, i) => { field.hidden = i !== shown; });
    this.choices.forEach((choice, i) => choice.setAttribute("aria-pressed", String(i === at)));
    this.fillColours();
  }

  tilePanel() {
    return this.explorer.state.tile < 0 ? welcome(this.comparison) : super.tilePanel();
  }

  /** @param {Tab} tab */
  panelOf(tab) {
    if (tab === "alike") return comparePanel(this.comparison);
    const panel = super.panelOf(tab);
    return tab === "selection" ? element("div", {}, panel, linkedSelection(this.comparison)) : panel;
  }
}
