// What draws the page: a graphics card, or the processor alone. Without a card other ways of drawing are the fast ones.

/** @typedef {{webgl: boolean, card: boolean}} Graphics whether there is WebGL 2, and whether a graphics card does its work */

/**
 * How far the canvases of a view reach beyond it, in pixels of the page: while a view is dragged, they are moved, and drawn
 * again only when that much has come into sight.
 */
export const SPARE_PX = 80;

const WITHOUT_CARD = /swiftshader|llvmpipe|softpipe|basic render/i; // renderers that use the processor

/** @type {Graphics | null} */
let known = null;

/** @returns {Graphics} */
export function graphics() {
  if (known) return known;
  const gl = document.createElement("canvas").getContext("webgl2");
  const names = gl?.getExtension("WEBGL_debug_renderer_info");
  const renderer = gl?.getParameter(names ? names.UNMASKED_RENDERER_WEBGL : gl.RENDERER) ?? "";
  gl?.getExtension("WEBGL_lose_context")?.loseContext();
  known = { webgl: Boolean(gl), card: Boolean(gl) && !WITHOUT_CARD.test(renderer) };
  return known;
}
