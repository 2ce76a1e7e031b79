// Receives pictures for the views of the live app: the base map of a city, and the sheets of tile pictures that a view
// asked for. data: { city, map: address of the image } or { city, sheets: { number: address } }

/** @import { Component, LivePictures } from "./types.d.ts" */

/** @param {Component<{city: string, map?: string, sheets?: Record<number, string>}>} component */
export default function ({ data, setTriggerValue }) {
  /** @type {LivePictures} */
  const pictures = ((window.loc2vecPictures ??= {})[data.city] ??= new EventTarget());
  if (data.sheets) pictures.ask = (numbers) => setTriggerValue("wanted", numbers);
  pictures.map = data.map ?? pictures.map;
  pictures.sheets = { ...pictures.sheets, ...data.sheets };
  pictures.dispatchEvent(new Event("arrived"));
}
