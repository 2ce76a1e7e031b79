// Square pictures out of WebP sheets, decoded when they are first needed.

/** @import { SheetData } from "./types.d.ts" */
/** @typedef {{image: HTMLImageElement, state: "loading" | "ready" | "damaged", done: Promise<void>}} Sheet */

export class Sheets {
  /**
   * @param {SheetData} spec
   * @param {{missing: string, line: string}} colours of the square that stands for a picture that cannot be read
   * @param {() => void} onLoad
   */
  constructor(spec, colours, onLoad) {
    this.spec = spec;
    this.colours = colours;
    this.onLoad = onLoad;
    /** @type {Sheet[]} */
    this.sheets = [];
  }

  /**
   * The sheet that holds a cell.
   * @param {number} cell
   */
  sheet(cell) {
    const number = Math.floor(cell / this.spec.per_sheet);
    return (this.sheets[number] ??= this.load(this.spec.sheets[number]));
  }

  /**
   * @param {string} source
   * @returns {Sheet}
   */
  load(source) {
    const image = new Image();
    /** @type {Sheet} */
    const sheet = { image, state: "loading", done: Promise.resolve() };
    sheet.done = new Promise((resolve) => {
      /** @param {"ready" | "damaged"} state */
      const settle = (state) => {
        sheet.state = state;
        resolve();
        this.onLoad();
      };
      image.onload = () => settle("ready");
      image.onerror = () => settle("damaged");
    });
    image.src = source;
    return sheet;
  }

  /**
   * Draw a cell, or a grey square if it is not decoded yet or cannot be read (a cell of -1). Returns whether it was
   * the picture.
   * @param {CanvasRenderingContext2D} context
   * @param {number} cell
   * @param {number} x
   * @param {number} y
   * @param {number} side
   */
  draw(context, cell, x, y, side) {
    const sheet = cell < 0 ? null : this.sheet(cell);
    if (sheet?.state === "ready") {
      const { size } = this.spec;
      const [left, top] = this.corner(cell);
      context.drawImage(sheet.image, left, top, size, size, x, y, side, side);
      return true;
    }
    context.fillStyle = this.colours.missing;
    context.fillRect(x, y, side, side);
    if (sheet?.state !== "loading") {
      context.strokeStyle = this.colours.line;
      context.lineWidth = Math.max(1, side / 24);
      context.beginPath();
      context.moveTo(x, y + side);
      context.lineTo(x + side, y);
      context.stroke();
    }
    return false;
  }

  /**
   * Where a cell starts on its sheet.
   * @param {number} cell
   * @returns {[number, number]}
   */
  corner(cell) {
    const { size, columns, per_sheet: perSheet } = this.spec;
    const place = cell % perSheet;
    return [(place % columns) * size, Math.floor(place / columns) * size];
  }
}
