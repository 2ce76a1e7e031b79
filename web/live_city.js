// Keeps a city for the views of the live app: 32 letters that name its content, then JSON.

const KEPT = 4;

/** @import { Component } from "./types.d.ts" */

/** @param {Component<Uint8Array>} component */
export default function ({ data }) {
  const cities = (window.loc2vecCities ??= new Map());
  const text = new TextDecoder();
  const key = text.decode(data.subarray(0, 32));
  const city = cities.get(key) ?? JSON.parse(text.decode(data.subarray(32)));
  cities.delete(key);
  cities.set(key, city);
  for (const old of [...cities.keys()].slice(0, -KEPT)) cities.delete(old);
}
