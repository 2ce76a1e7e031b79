// A place in the live app's page for one view. The view's code comes with a component of its own (live_view.js), so that it
// crosses the wire once and not with every rerun.

/** @import { Component, LiveData } from "./types.d.ts" */

const WAIT_MS = 8;

/** @param {Component<LiveData>} component */
export default async function (component) {
  while (!window.loc2vecShow) await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
  return window.loc2vecShow(component);
}
