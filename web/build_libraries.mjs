// Writes what the page takes from the npm packages named in package.json: parquet_library.js, which reads and writes
// Parquet, and plotly_3d.js, the part of Plotly that draws 3-D plots. It is a third of the whole.
//
//     npm install && npm run libraries

import { copyFileSync, readFileSync } from "node:fs";
import { build } from "esbuild";

const ENTRY = `
export { parquetMetadataAsync, parquetReadObjects, parquetSchema } from "hyparquet";
export { gunzip } from "hyparquet-compressors/src/gzip.js";
export { decompress as unzstd } from "fzstd";
export { parquetWriteBuffer } from "hyparquet-writer";
`;
const PACKAGES = ["hyparquet", "hyparquet-compressors", "hyparquet-writer", "fzstd"];

/** @type {Map<string, string[]>} packages by the text of their licence */
const licences = new Map();
for (const name of PACKAGES) {
  const { version } = JSON.parse(readFileSync(`node_modules/${name}/package.json`, "utf8"));
  const text = readFileSync(`node_modules/${name}/LICENSE`, "utf8").trim();
  licences.set(text, [...licences.get(text) ?? [], `${name} ${version}`]);
}
const notices = [...licences].map(([text, names]) => `${names.join(", ")}\n\n${text}\n`);

await build({
  stdin: { contents: ENTRY, resolveDir: "." },
  bundle: true,
  minify: true,
  lineLimit: 120,
  format: "iife",
  globalName: "library",
  banner: { js: `// @ts-nocheck\n// Written by build_libraries.mjs; do not edit.\n/*\n${notices.join("\n")}*/` },
  footer: { js: '/** @type {import("./types.d.ts").ParquetLibrary} */\nexport const parquet = library;' },
  outfile: "parquet_library.js",
});

copyFileSync("node_modules/plotly.js-gl3d-dist-min/plotly-gl3d.min.js", "plotly_3d.js"); // its licence is inside
