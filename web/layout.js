// The frame of the page: header, switches, both panes, legend, tabs, and the card that follows the pointer.

const CARD_PX = 104;

Object.assign(Explorer.prototype, {
  build() {
    this.measureWidth();
    const parts = (this.parts = {});
    parts.embedding = element("div", { class: "pane-body", tabindex: "0", role: "application", "data-pane": "embedding",
      "aria-label": "Embedding: one dot for each tile. Arrow keys move from dot to dot, Enter picks, plus and minus zoom." });
    parts.map = element("div", { class: "pane-body", tabindex: "0", role: "application", "data-pane": "map",
      "aria-label": "City map made of the tiles. Arrow keys move from tile to tile, Enter picks, plus and minus zoom." });
    parts.switches = element("div", { class: "switches" });
    parts.caption = element("p", { class: "caption" });
    parts.legend = element("div", { class: "legend", role: "group", "aria-label": "Legend" });
    parts.tile = element("div", { class: "tile-slot" });
    parts.tab = element("div", { class: "tab-body", role: "tabpanel", "aria-label": "Details", tabindex: "0" });
    parts.tabs = element("div", { class: "tabs", role: "tablist", "aria-label": "What to show" });
    parts.status = element("div", { class: "sr-only", role: "status", "aria-live": "polite" });
    parts.card = element("div", { class: "card-tip", hidden: true, "aria-hidden": "true" });
    parts.notice = element("p", { class: "notice", role: "note", hidden: true },
      "WebGL is not available here: dots are drawn without it, a little slower.");
    this.root.replaceChildren(this.header(), this.main(), parts.status, parts.card);
    this.fillTabs();
  },

  // How much room there is decides the arrangement: a page or a part of another one.
  measureWidth() {
    const width = this.root.clientWidth;
    this.root.dataset.width = width > 1100 ? "wide" : width > 700 ? "medium" : "narrow";
  },

  header() {
    const { data } = this;
    return element("header", { class: "top" },
      element("div", { class: "title" }, element("h1", {}, data.title), element("p", {}, data.subtitle)),
      this.finder(),
      element("div", { class: "top-actions" },
        button("Save PNG", () => this.savePicture(), { "aria-label": "Save the view as PNG" }),
        this.themeButton()));
  },

  themeButton() {
    const next = () => (this.dark ? "light" : "dark");
    return element("button", { type: "button", class: "button icon", "aria-label": "Switch between light and dark",
      title: "Light or dark", onclick: () => this.set({ theme: next() }) },
    element("span", { class: "theme-glyph", "aria-hidden": "true" }));
  },

  main() {
    const { parts } = this;
    return element("main", { class: "grid" },
      element("div", { class: "bar-top" }, parts.switches, this.colourChooser(), parts.legend),
      element("section", { class: "pane", "aria-label": "Embedding" },
        parts.embedding, this.paneTools(() => this.embedding, true), parts.caption, parts.notice),
      element("section", { class: "pane", "aria-label": "City map" },
        parts.map, this.paneTools(() => this.map, false),
        element("p", { class: "caption right" }, this.data.attribution)),
      element("aside", { class: "side", "aria-label": "Tile and neighbours" }, parts.tile, parts.tabs, parts.tab));
  },

  paneTools(pane, isEmbedding) {
    const tools = TOOLS.map(([tool, name, help]) => element("button", { type: "button", class: `tool tool-${tool}`, "data-tool": tool,
      "aria-label": name, title: help, onclick: () => this.set({ tool }) }, element("span", { class: "tool-glyph", "aria-hidden": "true" })));
    const zooms = [["+", "Zoom in", () => pane().zoom(1.5)], ["−", "Zoom out", () => pane().zoom(1 / 1.5)], ["⌂", "Show everything", () => pane().reset()]];
    const toggle = isEmbedding
      ? ["dots", "pictures", "Pictures", "Show tiles in place of dots"]
      : ["map", "plain", "Plain", "Show the map without colours"];
    return element("div", { class: "tools", role: "toolbar", "aria-label": isEmbedding ? "Embedding tools" : "Map tools" },
      element("div", { class: "group" }, tools),
      element("div", { class: "group" }, zooms.map(([glyph, name, act]) =>
        element("button", { type: "button", class: "tool", "aria-label": name, title: name, onclick: act }, glyph))),
      element("div", { class: "group" }, this.toggle(...toggle)));
  },

  toggle(name, on, text, help) {
    const flip = () => this.set({ [name]: this.state[name] === on ? { dots: "dots", map: "coloured" }[name] : on });
    return element("button", { type: "button", class: "tool wide", "data-toggle": name, "data-on": on, title: help, onclick: flip }, text);
  },

  segmented(label, entries, name) {
    return element("div", { class: "segmented", role: "group", "aria-label": label }, entries.map(([value, text]) =>
      element("button", { type: "button", "data-set": name, "data-value": String(value), onclick: () => this.set({ [name]: value }) }, text)));
  },

  fillSwitches() {
    const known = Object.keys(this.data.projections).map((name) => name.split("-"));
    const algorithms = [...new Set(known.map(([alg]) => alg))].map((alg) => [alg, NAMES[alg] ?? alg]);
    const dimensions = [...new Set(known.map(([, dim]) => Number(dim)))].sort().map((dim) => [dim, `${dim}-D`]);
    this.parts.switches.replaceChildren(
      this.segmented("Algorithm", algorithms, "alg"), this.segmented("Dimensions", dimensions, "dim"),
      this.segmented("Pictures show", [["composite", "Composite"], ["layer", "Main layer"]], "preview"));
  },

  colourChooser() {
    this.fillSwitches();
    const select = element("select", { "aria-label": "Colour by", onchange: () => this.set({ colour: select.value }) },
      COLOURINGS.map(([kind, name]) => element("option", { value: kind }, name)));
    this.parts.colour = select;
    return element("label", { class: "field" }, element("span", {}, "Colour by"), select);
  },

  // --- find ---

  finder() {
    const input = element("input", { type: "search", placeholder: `${this.tiles.zoom}/x/y or latitude, longitude`, "aria-label": "Find a tile",
      autocomplete: "off", spellcheck: "false" });
    const message = element("span", { class: "find-message", role: "alert" });
    const find = (event) => {
      event.preventDefault();
      message.textContent = this.find(input.value);
    };
    return element("form", { class: "finder", role: "search", onsubmit: find }, input,
      element("button", { type: "submit", class: "button" }, "Find"),
      button("Random", () => { message.textContent = ""; this.pickRandom(); }, { title: "Pick a tile at random" }), message);
  },

  // Pick what was typed; the answer says what was found when it is not exactly that.
  find(text) {
    const numbers = text.match(/[-+]?\d+(?:\.\d+)?/g)?.map(Number) ?? [];
    const isPlace = numbers.length === 2 && (/[.,]/.test(text) || numbers.some((value) => value < 0)) && Math.abs(numbers[0]) <= 90 && Math.abs(numbers[1]) <= 180;
    if (isPlace) return this.findPlace(numbers[0], numbers[1]);
    if (numbers.length < 2 || numbers.length > 3 || !numbers.every(Number.isInteger)) {
      return "Type a tile such as " + this.tiles.id(0) + " or a place such as " + this.tiles.centres[0].map((part) => part.toFixed(4)).join(", ");
    }
    const [x, y] = numbers.slice(-2);
    if (numbers.length === 3 && numbers[0] !== this.tiles.zoom) return `The tiles here have zoom ${this.tiles.zoom}, not ${numbers[0]}.`;
    const row = this.tiles.rowAt(x, y);
    if (row < 0) return this.findPlace(...latlonOfTile(x + 0.5, y + 0.5, this.tiles.zoom));
    this.pick(row);
    return "";
  },

  findPlace(lat, lon) {
    const [x, y] = tileOfLatlon(lat, lon, this.tiles.zoom).map(Math.floor);
    const exact = this.tiles.rowAt(x, y);
    const [nearest, km] = exact >= 0 ? [exact, 0] : this.tiles.nearestTo(lat, lon);
    if (!(km <= Math.max(5, this.widestKm))) return "That place is far outside this city.";
    this.pick(nearest);
    return exact >= 0 ? "" : `Not in this page; the nearest tile that is lies ${formatKm(km)} away.`;
  },

  // --- parts that follow the state ---

  fillTabs() {
    this.parts.tabs.replaceChildren(...TABS.map(([tab, name]) => element("button", { type: "button", role: "tab", "data-tab": tab,
      onclick: () => this.set({ tab }), onkeydown: (event) => this.moveTab(event) }, name)));
  },

  moveTab(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const at = TABS.findIndex(([tab]) => tab === this.state.tab);
    this.set({ tab: TABS[(at + step + TABS.length) % TABS.length][0] });
    this.parts.tabs.querySelector('[aria-selected="true"]').focus();
  },

  fillPanels() {
    const panels = { alike: alikePanel, sum: arithmeticPanel, walk: walkPanel, selection: selectionPanel };
    const focus = this.focusName();
    this.parts.tile.replaceChildren(tilePanel(this));
    this.parts.tab.replaceChildren(panels[this.state.tab](this));
    this.refocus(focus);
  },

  // Panels are built anew; whoever works with the keyboard keeps their place.
  focusName() {
    const active = this.root.getRootNode().activeElement;
    return active && (this.parts.tile.contains(active) || this.parts.tab.contains(active))
      ? active.dataset.layer ?? active.getAttribute("aria-label") : null;
  },

  refocus(name) {
    if (!name) return;
    const same = (node) => (node.dataset.layer ?? node.getAttribute("aria-label")) === name;
    [...this.root.querySelectorAll(".side button, .side input")].find(same)?.focus({ preventScroll: true });
  },

  markControls() {
    const { root, state, parts } = this;
    for (const node of root.querySelectorAll("[data-set]")) {
      node.setAttribute("aria-pressed", String(String(state[node.dataset.set]) === node.dataset.value));
    }
    for (const node of root.querySelectorAll(".tools [data-tool]")) node.setAttribute("aria-pressed", String(node.dataset.tool === state.tool));
    for (const node of root.querySelectorAll("[data-toggle]")) {
      node.setAttribute("aria-pressed", String(state[node.dataset.toggle] === node.dataset.on));
    }
    for (const node of root.querySelectorAll("[data-tab]")) {
      node.setAttribute("aria-selected", String(node.dataset.tab === state.tab));
      node.tabIndex = node.dataset.tab === state.tab ? 0 : -1;
    }
    for (const node of root.querySelectorAll('[data-set="dim"], [data-set="alg"]')) {
      const wanted = { alg: state.alg, dim: state.dim, [node.dataset.set]: node.dataset.value };
      node.disabled = !(`${wanted.alg}-${wanted.dim}` in this.data.projections);
    }
    parts.colour.value = state.colour;
    parts.caption.textContent = this.caption();
    parts.map.dataset.tile = parts.embedding.dataset.tile = state.tile < 0 ? "" : this.tiles.id(state.tile);
  },

  caption() {
    const { trustworthiness, explained } = this.data.projections[`${this.state.alg}-${this.state.dim}`];
    const faithful = trustworthiness == null ? "" : ` · keeps neighbours ${(100 * trustworthiness).toFixed(0)} %`;
    const share = explained ? ` · ${(100 * explained.reduce((sum, part) => sum + part, 0)).toFixed(0)} % of the variance` : "";
    return `${NAMES[this.state.alg] ?? this.state.alg}, ${this.state.dim}-D${faithful}${share}`;
  },

  fillLegend() {
    const { legend, parts } = this;
    const makers = { categories: () => this.categoryLegend(legend), ramp: () => [rampLegend(legend)], rgb: () => [rgbLegend()],
      hint: () => [element("span", { class: "legend-hint" }, legend.text)] };
    parts.legend.replaceChildren(...makers[legend.kind]());
    parts.legend.dataset.kind = legend.kind;
  },

  categoryLegend({ items, index }) {
    return items.map((item) => element("button", { type: "button", class: "chip", "data-category": item.name,
      title: `Select the ${item.count.toLocaleString("en")} tiles`,
      onclick: (event) => this.select([...index.keys()].filter((row) => index[row] === item.category || (index[row] < 0 && item.category < 0)), event.shiftKey) },
    swatch(`rgb(${item.colour.join(",")})`), item.name, element("span", { class: "count" }, item.count.toLocaleString("en"))));
  },

  // --- the card at the pointer ---

  showCard(row, pane, [x, y]) {
    const { card } = this.parts;
    card.hidden = row < 0;
    if (row < 0) return;
    if (card.dataset.tile !== this.tiles.id(row)) this.fillCard(row);
    const [box, frame] = [pane.host.getBoundingClientRect(), this.root.getBoundingClientRect()];
    const [width, height] = [card.offsetWidth, card.offsetHeight];
    const left = box.left - frame.left + x + 16;
    const top = box.top - frame.top + y + 16;
    card.style.left = `${left + width > frame.width ? Math.max(4, left - width - 32) : left}px`;
    card.style.top = `${top + height > frame.height ? Math.max(4, top - height - 32) : top}px`;
  },

  fillCard(row) {
    const { card } = this.parts;
    const { id, layer, zone, density } = this.tiles.facts(row);
    const lines = [id, `${zone} · ${Math.round(density * 100)} % dense`];
    if (this.state.tile >= 0 && this.state.tile !== row) lines.push(`similarity ${this.similarities(this.state.tile)[row].toFixed(3)}`);
    card.dataset.tile = id;
    card.replaceChildren(tileCanvas(this, row, CARD_PX),
      element("div", {}, element("strong", {}, layer), lines.map((line) => element("span", {}, line))));
  },

  // --- the view as a picture ---

  async savePicture() {
    const [left, right] = [await this.embedding.image(), this.map.canvas];
    const { width, height } = this.embedding;
    const gap = 16;
    const picture = element("canvas");
    fitCanvas(picture, width + this.map.width + 3 * gap, Math.max(height, this.map.height) + 96);
    const context = picture.getContext("2d");
    context.fillStyle = this.ink.card;
    context.fillRect(0, 0, picture.width, picture.height);
    context.fillStyle = this.ink.text;
    context.font = "600 18px system-ui, sans-serif";
    context.fillText(this.data.title, gap, 28);
    context.font = "13px system-ui, sans-serif";
    context.fillStyle = this.ink.faint;
    context.fillText(`${this.caption()} · ${COLOURINGS.find(([kind]) => kind === this.state.colour)[1].toLowerCase()} · ${this.data.attribution}`, gap, 50);
    context.drawImage(left, gap, 64, width, height);
    context.drawImage(right, width + 2 * gap, 64, this.map.width, this.map.height);
    context.drawImage(this.map.overlay, width + 2 * gap, 64, this.map.width, this.map.height);
    this.drawLegend(context, gap, Math.max(height, this.map.height) + 84);
    picture.toBlob((blob) => download(blob, "loc2vec.png"), "image/png");
  },

  drawLegend(context, x, y) {
    const { legend, ink } = this;
    context.font = "12px system-ui, sans-serif";
    for (const item of legend.items ?? []) {
      const text = `${item.name} ${item.count.toLocaleString("en")}`;
      context.fillStyle = `rgb(${item.colour.join(",")})`;
      context.fillRect(x, y - 9, 10, 10);
      context.fillStyle = ink.text;
      context.fillText(text, x + 15, y);
      x += context.measureText(text).width + 32;
    }
    if (legend.ramp) this.drawRamp(context, x, y);
  },

  drawRamp(context, x, y) {
    const { ramp, labels, caption } = this.legend;
    const width = 220;
    const gradient = context.createLinearGradient(x, 0, x + width, 0);
    ramp.forEach((colour, i) => gradient.addColorStop(i / (ramp.length - 1), `rgb(${colour.join(",")})`));
    context.fillStyle = gradient;
    context.fillRect(x, y - 10, width, 10);
    context.fillStyle = this.ink.text;
    context.fillText(`${labels.join(" – ")} ${caption}`, x + width + 10, y);
  },
});

function rampLegend({ ramp, bins, labels, caption }) {
  const most = Math.max(...bins);
  const bars = bins.map((count, i) => {
    const bar = element("span", { class: "ramp-bin", title: `${count.toLocaleString("en")} tiles` });
    const colour = rampColour(ramp, (i + 0.5) / bins.length);
    bar.style.cssText = `height:${count ? 3 + (21 * count) / most : 0}px;background:rgb(${colour.join(",")})`;
    bar.dataset.count = count;
    return bar;
  });
  return element("div", { class: "ramp" }, element("span", {}, labels[0]), element("div", { class: "ramp-bins" }, bars),
    element("span", {}, labels[1]), element("span", { class: "legend-hint" }, caption));
}

function rgbLegend() {
  return element("div", { class: "ramp" }, ["red", "green", "blue"].map((name, i) =>
    element("span", { class: "chip plain" }, swatch(["#d64545", "#2f9e58", "#3b6fd4"][i]), `component ${i + 1} is ${name}`)));
}
