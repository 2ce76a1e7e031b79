// Tables that people have: CSV with any usual separator, GeoJSON, Parquet and GeoParquet, as rows of cells with their geometries.

import { parquet } from "./parquet_library.js";

/** @typedef {{type: string, coordinates?: any, geometries?: Geometry[]}} Geometry */
/** @import { ParquetColumn } from "./types.d.ts" */
/** @typedef {string | number | boolean | null} Cell */
/** @typedef {{names: string[], rows: Cell[][], shapes: (Geometry | null)[] | null}} Table */

const SEPARATORS = [",", ";", "\t", "|"];
const LONGITUDE_LATITUDE = ["OGC:CRS84", "EPSG:4326"]; // coordinate systems of a GeoParquet file that need no conversion
const NUMBER = /^[+-]?(?=[.,]?\d)(0|[1-9]\d*)?([.,]\d+)?([eE][+-]?\d+)?$/; // no leading zeros: 0042 is a code

/**
 * Read a table; throws an error that says what is wrong with it.
 * @param {string} name of the file
 * @param {ArrayBuffer} bytes
 * @returns {Promise<Table>}
 */
export async function readTable(name, bytes) {
  if (new TextDecoder().decode(bytes.slice(0, 4)) === "PAR1") return readParquet(bytes);
  const text = decoded(bytes);
  if (text.includes("\0")) throw new Error("this is not a text file; expected CSV, GeoJSON or Parquet");
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
 * The columns of single values, and the geometries, of a Parquet file. Other columns, such as vectors, are not read.
 * @param {ArrayBuffer} bytes
 * @returns {Promise<Table>}
 */
async function readParquet(bytes) {
  const file = { byteLength: bytes.byteLength, slice: bytes.slice.bind(bytes) };
  const compressors = {
    ZSTD: (/** @type {Uint8Array} */ packed) => parquet.unzstd(packed),
    GZIP: (/** @type {Uint8Array} */ packed, /** @type {number} */ length) => parquet.gunzip(packed, new Uint8Array(length)),
  };
  try {
    const metadata = await parquet.parquetMetadataAsync(file);
    const single = parquet.parquetSchema(metadata).children.filter(({ children }) => !children.length);
    const isShape = (/** @type {ParquetColumn} */ { element }) => /^GEO/.test(element.logical_type?.type ?? "");
    const shape = single.find(isShape)?.element;
    const system = shape?.logical_type?.crs ?? LONGITUDE_LATITUDE[0];
    if (!LONGITUDE_LATITUDE.includes(system)) throw new Error(`its places are in ${system}; expected longitude and latitude`);
    const names = single.filter((column) => !isShape(column)).map(({ element }) => element.name);
    const records = await parquet.parquetReadObjects(
      { file, metadata, compressors, columns: shape ? [...names, shape.name] : names });
    if (!records.length) throw new Error("it has no rows");
    return {
      names, rows: records.map((record) => names.map((name) => cellOf(record[name]))),
      shapes: shape ? records.map((record) => record[shape.name] ?? null) : null,
    };
  } catch (error) {
    throw new Error(`this Parquet file cannot be read: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/**
 * @param {unknown} value
 * @returns {Cell}
 */
function cellOf(value) {
  if (typeof value === "bigint") return Number(value);
  if (value instanceof Date) return value.toISOString();
  return typeof value === "string" || typeof value === "number" || typeof value === "boolean" ? value : null;
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
