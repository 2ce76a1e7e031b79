// Names of categories on a view: where the tiles of each are densest, as many as fit without hiding each other.

/** @import { LegendItem, NumberArray, Point } from "./types.d.ts" */
/** @typedef {{x: number, y: number, lines: string[], width: number, height: number}} Label middle and size in pixels */
/** @typedef {{bin: number, weight: number}} Peak */

const BIN_PX = 44;
const LINE_PX = 15;
const MARGIN_PX = 4;
const WRAP_LETTERS = 17; // a longer name takes two lines
const TOP_PX = 46; // the tools
const PEAKS_TRIED = 4; // of one name, until one is free
const SMALLEST_SHARE = 0.002; // of the tiles in sight must lie around a label
const PURE = 0.4; // share of a name's tiles among those around it, for a second label of the same name

/**
 * @param {{positions: Float32Array, width: number, height: number}} view
 * @param {LegendItem[]} items
 * @param {NumberArray} values category of each tile
 * @param {(row: number) => boolean} isShown
 * @param {(text: string) => number} measure width of a text in pixels
 * @param {number} repeats how often one name may stand on the view
 * @returns {Label[]}
 */
export function placeLabels(view, items, values, isShown, measure, repeats) {
  const { positions, width, height } = view;
  const columns = Math.max(1, Math.ceil(width / BIN_PX));
  const bins = columns * Math.max(1, Math.ceil(height / BIN_PX));
  const itemOf = new Int32Array(2 + Math.max(-1, ...items.map(({ category }) => category))).fill(-1); // by category, from -1
  items.forEach(({ category }, i) => { itemOf[category + 1] = i; });
  const counts = items.map(() => new Uint32Array(bins));
  let inSight = 0;
  for (let row = 0; row < values.length; row++) {
    const [x, y] = [positions[2 * row], positions[2 * row + 1]];
    const item = itemOf[Math.max(-1, values[row]) + 1] ?? -1;
    if (!(x >= 0 && y >= 0 && x < width && y < height) || item < 0 || !isShown(row)) continue;
    counts[item][Math.floor(y / BIN_PX) * columns + Math.floor(x / BIN_PX)]++;
    inSight++;
  }
  const around = counts.map((own) => sumAround(own, columns));
  const everything = new Uint32Array(bins);
  for (const own of around) own.forEach((count, bin) => { everything[bin] += count; });
  /** @type {Label[]} */
  const labels = [];
  const peaks = items.map((_, i) => peaksOf(around[i], everything, columns));
  const order = [...items.keys()].filter((i) => items[i].category >= 0 && peaks[i].length)
    .sort((a, b) => peaks[b][0].weight - peaks[a][0].weight);
  for (let turn = 0; turn < repeats; turn++) {
    for (const i of order) {
      const tried = turn ? peaks[i].filter(({ bin }) => around[i][bin] >= PURE * everything[bin]) : peaks[i];
      for (const { bin, weight } of tried.slice(turn, turn + PEAKS_TRIED)) {
        if (weight < Math.max(1, SMALLEST_SHARE * inSight)) break;
        const label = labelAt(items[i].name, middleOf(bin, counts[i], columns), measure, width, height);
        if (labels.some((other) => overlap(label, other))) continue;
        labels.push(label);
        break;
      }
    }
  }
  return labels;
}

/**
 * For each bin the sum of it and the eight around it.
 * @param {Uint32Array} counts
 * @param {number} columns
 */
function sumAround(counts, columns) {
  return counts.map((_, bin) => neighbours(bin, counts.length, columns).reduce((sum, other) => sum + counts[other], 0));
}

/**
 * @param {number} bin
 * @param {number} bins
 * @param {number} columns
 */
function neighbours(bin, bins, columns) {
  const column = bin % columns;
  const found = [];
  for (const down of [-columns, 0, columns]) {
    for (const right of [-1, 0, 1]) {
      const other = bin + down + right;
      if (other >= 0 && other < bins && column + right >= 0 && column + right < columns) found.push(other);
    }
  }
  return found;
}

/**
 * Bins around which a name has more tiles, and purer ones, than around the bins next to them; the best first.
 * @param {Uint32Array} own
 * @param {Uint32Array} everything
 * @param {number} columns
 * @returns {Peak[]}
 */
function peaksOf(own, everything, columns) {
  const weights = Array.from(own, (count, bin) => (count ? (count * count) / everything[bin] : 0));
  /** @type {Peak[]} */
  const peaks = [];
  weights.forEach((weight, bin) => {
    if (weight && neighbours(bin, weights.length, columns).every((other) => weights[other] <= weight)) {
      peaks.push({ bin, weight });
    }
  });
  return peaks.sort((a, b) => b.weight - a.weight);
}

/**
 * Where the tiles around a bin are on average.
 * @param {number} bin
 * @param {Uint32Array} counts
 * @param {number} columns
 * @returns {Point}
 */
function middleOf(bin, counts, columns) {
  let [x, y, sum] = [0, 0, 0];
  for (const other of neighbours(bin, counts.length, columns)) {
    x += counts[other] * ((other % columns) + 0.5);
    y += counts[other] * (Math.floor(other / columns) + 0.5);
    sum += counts[other];
  }
  return [(x / sum) * BIN_PX, (y / sum) * BIN_PX];
}

/**
 * @param {string} name
 * @param {Point} middle
 * @param {(text: string) => number} measure
 * @param {number} viewWidth
 * @param {number} viewHeight
 * @returns {Label}
 */
function labelAt(name, [x, y], measure, viewWidth, viewHeight) {
  const lines = wrapped(name);
  const width = Math.max(...lines.map(measure));
  const height = lines.length * LINE_PX;
  const [halfX, halfY] = [width / 2 + MARGIN_PX, height / 2 + MARGIN_PX];
  return {
    lines, width, height,
    x: Math.min(Math.max(x, halfX), Math.max(halfX, viewWidth - halfX)),
    y: Math.min(Math.max(y, TOP_PX + halfY), Math.max(TOP_PX + halfY, viewHeight - halfY)),
  };
}

/**
 * A long name as two lines of similar length.
 * @param {string} name
 */
function wrapped(name) {
  if (name.length <= WRAP_LETTERS) return [name];
  const spaces = [...name.matchAll(/ /g)].map(({ index }) => /** @type {number} */ (index));
  if (!spaces.length) return [name];
  const middle = spaces.reduce((best, at) =>
    (Math.abs(at - name.length / 2) < Math.abs(best - name.length / 2) ? at : best));
  return [name.slice(0, middle), name.slice(middle + 1)];
}

/**
 * @param {Label} a
 * @param {Label} b
 */
function overlap(a, b) {
  return Math.abs(a.x - b.x) < (a.width + b.width) / 2 + MARGIN_PX
    && Math.abs(a.y - b.y) < (a.height + b.height) / 2 + MARGIN_PX;
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Label[]} labels
 * @param {string} ink colour of the text
 * @param {string} halo colour around it
 */
export function drawLabels(context, labels, ink, halo) {
  context.font = LABEL_FONT;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.lineJoin = "round";
  context.lineWidth = 4;
  context.strokeStyle = halo;
  context.fillStyle = ink;
  for (const { x, y, lines } of labels) {
    lines.forEach((line, i) => {
      const at = y + (i - (lines.length - 1) / 2) * LINE_PX;
      context.strokeText(line, x, at);
      context.fillText(line, x, at);
    });
  }
}

export const LABEL_FONT = "650 12.5px system-ui, sans-serif";
