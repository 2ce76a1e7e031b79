// Many dots on a canvas: discs of the embedding, squares of the map. WebGL draws them where a graphics card does the work;
// elsewhere filling pixels one by one is several times faster than WebGL without a card. Without a card every canvas on the
// screen costs time in each frame, so those pixels are copied into a canvas of the view; WebGL has a canvas of its own there.

import { graphics } from "./graphics.js";
import { PixelDots } from "./pixel_dots.js";
import { WebglDots } from "./webgl_dots.js";

/**
 * The dots of a view; if they are a layer of their own, right above `below`.
 * @param {HTMLElement} below
 * @param {() => void} redraw called when what was drawn is lost
 * @returns {PixelDots | WebglDots}
 */
export function dotsAbove(below, redraw) {
  const dots = graphics().card ? new WebglDots(redraw) : new PixelDots();
  if (dots.isLayer) below.after(dots.canvas);
  return dots;
}
