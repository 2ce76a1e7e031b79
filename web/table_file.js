// Tables that people have: CSV with any usual separator, and GeoJSON, as rows of cells with their geometries.

/** @typedef {{type: string, coordinates?: any, geometries?: Geometry[]}} Geometry */
/** @typedef {{names: string[], rows: (string | number | boolean | null)[][], shapes: (Geometry | null)[] | null}} Table */

const SEPARATORS = [",", ";", "\t", "|"];
const NUMBER = /^[+-]?(0|[1-9]\d*)?([.,]\d+)?([eE][+-]?\d+)?$/; // no leading zeros: 0042 is a code

/**
 * Read a table; throws an error that says what is wrong with it.
 * @param {string} name of the file
 * @param {ArrayBuffer} bytes
 * @returns {Table}
 */
export function readTable(name, bytes) {
  const text = decoded(bytes);
  if (text.includes("\0")) throw new Error("this is not a text file; expected CSV or GeoJSON");
  if (/^\s*\{/.test(text)) return readGeojson(text);
  if (/json$/i.test(name)) throw new Error("this is not GeoJSON");
  return readCsv(text);
}

/** @param {ArrayBuffer} bytes */
function decoded(bytes) {
  const start = new Uint8Array(bytes.slice(0, 2));
  if (start[0] === 0xff && start[1] === 0xfe) return new TextDecoder("utf-16le").decode(bytes);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return new TextDecoder("windows-1251").decode(bytes);
  }
}

/**
 * @param {string} text
 * @returns {Table}
 */
function readGeojson(text) {
  let json;
  try {
    json = JSON.parse(text);
  } catch {
    throw new Error("this is not complete GeoJSON");
  }
  const features = json.type === "FeatureCollection" ? json.features : json.type === "Feature" ? [json] : null;
  if (!Array.isArray(features) || !features.length) throw new Error("this GeoJSON has no features");
  const names = [...new Set(features.flatMap((feature) => Object.keys(feature?.properties ?? {})))];
  return {
    names, shapes: features.map((feature) => feature?.geometry ?? null),
    rows: features.map((feature) => names.map((name) => {
      const cell = feature?.properties?.[name];
      return ["string", "number", "boolean"].includes(typeof cell) ? cell : null;
    })),
  };
}

/**
 * @param {string} text
 * @returns {Table}
 */
function readCsv(text) {
  const header = text.slice(0, (text.search(/[\r\n]/) + 1 || text.length + 1) - 1).replace(/"[^"]*"/g, "");
  const separator = SEPARATORS.reduce((best, mark) =>
    (header.split(mark).length > header.split(best).length ? mark : best));
  const [names, ...lines] = csvLines(text, separator);
  if (!names || !lines.length) throw new Error("this table has no rows");
  const trimmed = names.map((name) => name.trim());
  const rows = lines.map((line) => trimmed.map((_, i) => (line[i] ?? "").trim() || null));
  const decimalComma = separator !== ",";
  const cells = trimmed.map((_, i) => rows.map((row) => row[i]).filter((cell) => cell !== null));
  trimmed.forEach((_, i) => {
    if (!cells[i].length || !cells[i].every((cell) => NUMBER.test(cell) && (decimalComma || !cell.includes(",")))) return;
    for (const row of rows) {
      const cell = row[i];
      if (typeof cell === "string") row[i] = /** @type {any} */ (Number(cell.replace(",", ".")));
    }
  });
  return { names: trimmed, rows, shapes: null };
}

/**
 * Lines of cells; a quoted cell may hold separators, line ends and doubled quotes.
 * @param {string} text
 * @param {string} separator
 */
function csvLines(text, separator) {
  /** @type {string[][]} */
  const lines = [];
  let [line, cell, quoted] = [/** @type {string[]} */ ([]), "", false];
  const endLine = () => {
    line.push(cell);
    if (line.length > 1 || line[0].trim()) lines.push(line);
    [line, cell] = [[], ""];
  };
  for (let i = 0; i < text.length; i++) {
    const letter = text[i];
    if (quoted) {
      if (letter !== '"') cell += letter;
      else if (text[i + 1] === '"') cell += text[++i];
      else quoted = false;
    } else if (letter === '"' && !cell.trim()) [cell, quoted] = ["", true];
    else if (letter === separator) {
      line.push(cell);
      cell = "";
    } else if (letter === "\n" || letter === "\r") endLine();
    else cell += letter;
  }
  endLine();
  return lines;
}
