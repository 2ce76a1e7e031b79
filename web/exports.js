// Tiles as CSV, GeoJSON and GeoParquet, the page as a picture, and saving them as files.

import { context2d, element, fitCanvas } from "./dom.js";
import { latlonOfTile } from "./geography.js";
import { drawLegend } from "./legend.js";
import { parquet } from "./parquet_library.js";

/** @import { Explorer } from "./explorer.js" */
/** @import { Colourings } from "./colourings.js" */
/** @import { Tiles } from "./tiles.js" */
/** @import { ParquetData } from "./types.d.ts" */

const PICTURE_GAP_PX = 16;

/**
 * What is known about each tile, by column.
 * @param {Tiles} tiles
 * @param {Colourings} colourings
 * @param {number[]} rows
 * @returns {Record<string, string | number>[]}
 */
function records(tiles, colourings, rows) {
  return rows.map((row) => {
    const [lat, lon] = tiles.centres[row].map((degrees) => Number(degrees.toFixed(6)));
    const facts = colourings.facts(row).map(({ column, value }) => [column, value]);
    return { zoom: tiles.zoom, x: tiles.x(row), y: tiles.y(row), lat, lon, ...Object.fromEntries(facts) };
  });
}

/**
 * The columns of a table; a record may lack some.
 * @param {Record<string, string | number>[]} table
 */
function namesOf(table) {
  return [...new Set(table.flatMap((record) => Object.keys(record)))];
}

/**
 * @param {Tiles} tiles
 * @param {Colourings} colourings
 * @param {number[]} rows
 */
export function csvOf(tiles, colourings, rows) {
  const table = records(tiles, colourings, rows);
  const names = namesOf(table);
  const lines = [names, ...table.map((record) => names.map((name) => record[name] ?? ""))];
  return `${lines.map((line) => line.map(csvCell).join(",")).join("\r\n")}\r\n`;
}

/**
 * Quoted where needed. A leading = + - @ in text would run as a formula in a spreadsheet.
 * @param {string | number} value
 */
function csvCell(value) {
  const text = typeof value === "string" ? value.replace(/^[=+\-@\t\r]/, "'$&") : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/**
 * @param {Tiles} tiles
 * @param {Colourings} colourings
 * @param {number[]} rows
 */
export function geojsonOf(tiles, colourings, rows) {
  const features = records(tiles, colourings, rows).map((properties, i) => {
    return { type: "Feature", id: tiles.id(rows[i]), properties, geometry: outline(tiles, rows[i]) };
  });
  return JSON.stringify({ type: "FeatureCollection", features });
}

/**
 * @param {Tiles} tiles
 * @param {Colourings} colourings
 * @param {number[]} rows
 */
export function parquetOf(tiles, colourings, rows) {
  const table = records(tiles, colourings, rows);
  /** @type {ParquetData[]} */
  const columnData = namesOf(table).map((name) => {
    const data = table.map((record) => record[name] ?? null);
    const type = ["zoom", "x", "y"].includes(name) ? "INT32" : data.some((cell) => typeof cell === "string") ? "STRING" : "DOUBLE";
    return { name, type, data: type === "STRING" ? data.map((cell) => (cell === null ? null : String(cell))) : data };
  });
  columnData.push({ name: "geometry", type: "GEOMETRY", data: rows.map((row) => outline(tiles, row)) });
  const geo = { version: "1.1.0", primary_column: "geometry", columns: { geometry: { encoding: "WKB", geometry_types: ["Polygon"] } } };
  return parquet.parquetWriteBuffer({ columnData, kvMetadata: [{ key: "geo", value: JSON.stringify(geo) }] });
}

/**
 * The ground of a tile.
 * @param {Tiles} tiles
 * @param {number} row
 */
function outline(tiles, row) {
  const [x, y] = [tiles.x(row), tiles.y(row)];
  const ring = [[x, y], [x, y + 1], [x + 1, y + 1], [x + 1, y], [x, y]].map(([cornerX, cornerY]) =>
    latlonOfTile(cornerX, cornerY, tiles.zoom).reverse().map((degrees) => Number(degrees.toFixed(7))));
  return { type: "Polygon", coordinates: [ring] };
}

/**
 * Save a file.
 * @param {string | Blob | ArrayBuffer} content
 * @param {string} name
 * @param {string} type
 */
export function download(content, name, type) {
  const address = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/**
 * Save both views with title, caption and legend as a PNG.
 * @param {Explorer} explorer
 */
export async function savePicture(explorer) {
  const { embedding, map, ink, data, colourings, state } = explorer;
  const gap = PICTURE_GAP_PX;
  const left = await embedding.image();
  const [width, height] = [embedding.width + map.width + gap, Math.max(embedding.height, map.height)];
  const picture = element("canvas");
  const context = context2d(picture);
  const legendHeight = drawLegend(context, explorer.legend, ink.text, 0, 0, width);
  fitCanvas(picture, width + 2 * gap, height + 78 + legendHeight);
  context.fillStyle = ink.card;
  context.fillRect(0, 0, picture.width, picture.height);
  context.fillStyle = ink.text;
  context.font = "600 18px system-ui, sans-serif";
  context.fillText(data.title, gap, 28);
  context.font = "13px system-ui, sans-serif";
  context.fillStyle = ink.faint;
  context.fillText([explorer.caption(), colourings.get(state.colour).label, data.attribution].join(" · "), gap, 50);
  context.drawImage(left, gap, 64, embedding.width, embedding.height);
  context.drawImage(map.image(), embedding.width + 2 * gap, 64, map.width, map.height);
  drawLegend(context, explorer.legend, ink.text, gap, height + 84, width);
  picture.toBlob((blob) => blob && download(blob, "loc2vec.png", "image/png"), "image/png");
}
