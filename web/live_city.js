// Keeps a city for the views of the live app: 32 letters that name its content, then JSON as gzip. Those shown last are
// kept, with their pictures.

const KEPT = 4;

/** @import { Component } from "./types.d.ts" */

/** @param {Uint8Array<ArrayBuffer>} gzip */
function unpacked(gzip) {
  return new Response(new Blob([gzip]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

/** @param {Component<Uint8Array<ArrayBuffer>>} component */
export default async function ({ data }) {
  const cities = (window.loc2vecCities ??= new Map());
  const key = new TextDecoder().decode(data.subarray(0, 32));
  const city = cities.get(key) ?? (await unpacked(data.slice(32)));
  cities.delete(key);
  cities.set(key, city);
  for (const old of [...cities.keys()].slice(0, -KEPT)) {
    cities.delete(old);
    delete window.loc2vecPictures?.[old];
  }
}
