// Dots drawn by a graphics card with WebGL 2.

import { element, pixelRatio, sizeCanvas } from "./dom.js";
import { SPARE_PX } from "./graphics.js";

/** @import { DotStyle } from "./types.d.ts" */

const VERTEX = `#version 300 es
in vec2 position;
in vec4 colour;
uniform vec2 canvas;
uniform float spare, size, ratio;
out vec4 fill;
void main() {
  vec2 share = (position + spare) / canvas;
  gl_Position = vec4(2.0 * share.x - 1.0, 1.0 - 2.0 * share.y, 0.0, 1.0);
  gl_PointSize = (size + 1.0) * ratio;
  fill = colour;
}`;
const FRAGMENT = `#version 300 es
precision highp float;
in vec4 fill;
uniform float size, ratio, lineWidth;
uniform bool isRound;
uniform vec3 line;
out vec4 shown;
void main() {
  vec2 off = (gl_PointCoord - 0.5) * (size + 1.0);
  float edge = size / 2.0 - (isRound ? length(off) : max(abs(off.x), abs(off.y)));  // pixels to the edge
  float inside = clamp(edge * ratio + 0.5, 0.0, 1.0);
  vec3 rgb = lineWidth > 0.0 ? mix(line, fill.rgb, clamp((edge - lineWidth) * ratio + 0.5, 0.0, 1.0)) : fill.rgb;
  shown = vec4(rgb, 1.0) * fill.a * inside;
}`;

export class WebglDots {
  /** @param {() => void} redraw called when the graphics card has lost everything and is back */
  constructor(redraw) {
    this.isLayer = true;
    this.canvas = element("canvas", { class: "dots", "aria-hidden": "true" });
    const gl = this.canvas.getContext("webgl2", { antialias: false, depth: false });
    if (!gl) throw new Error("WebGL 2 is not available");
    this.gl = gl;
    this.card = connected(gl);
    /** @type {Uint32Array<ArrayBuffer>} */
    this.order = new Uint32Array(0);
    /** @type {Uint8Array<ArrayBuffer>} */
    this.colours = new Uint8Array(0);
    this.width = 0;
    this.height = 0;
    this.canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    this.canvas.addEventListener("webglcontextrestored", () => {
      this.card = connected(gl);
      this.fit(this.width, this.height);
      this.paint(this.order, this.colours);
      redraw();
    });
  }

  /**
   * @param {number} width of the view, in pixels of the page
   * @param {number} height
   */
  fit(width, height) {
    const { canvas, gl } = this;
    Object.assign(this, { width, height });
    sizeCanvas(canvas, width, height, SPARE_PX);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.uniform2f(this.card.uniform("canvas"), width + 2 * SPARE_PX, height + 2 * SPARE_PX);
  }

  /**
   * @param {Uint32Array<ArrayBuffer>} order rows of the dots to draw, those on top last
   * @param {Uint8Array<ArrayBuffer>} colours red, green, blue and opacity of every dot
   */
  paint(order, colours) {
    const { gl } = this;
    this.order = order;
    this.colours = colours;
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, order, gl.STATIC_DRAW);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.card.colour);
    gl.bufferData(gl.ARRAY_BUFFER, colours, gl.STATIC_DRAW);
  }

  /**
   * @param {Float32Array} positions x and y of every dot in pixels of the view; NaN is not drawn
   * @param {DotStyle} style
   */
  draw(positions, { size, round, line }) {
    const { card, gl } = this;
    gl.uniform1f(card.uniform("spare"), SPARE_PX);
    gl.uniform1f(card.uniform("ratio"), pixelRatio());
    gl.uniform1f(card.uniform("size"), size);
    gl.uniform1i(card.uniform("isRound"), round ? 1 : 0);
    gl.uniform1f(card.uniform("lineWidth"), line?.width ?? 0);
    gl.uniform3fv(card.uniform("line"), (line?.colour ?? [0, 0, 0]).slice(0, 3).map((part) => part / 255));
    gl.bindBuffer(gl.ARRAY_BUFFER, card.position);
    gl.bufferData(gl.ARRAY_BUFFER, positions, gl.DYNAMIC_DRAW);
    this.clear();
    gl.drawElements(gl.POINTS, this.order.length, gl.UNSIGNED_INT, 0);
  }

  clear() {
    this.gl.clear(this.gl.COLOR_BUFFER_BIT);
  }

  destroy() {
    this.gl.getExtension("WEBGL_lose_context")?.loseContext();
  }
}

/**
 * The program and its buffers, new on the graphics card.
 * @param {WebGL2RenderingContext} gl
 */
function connected(gl) {
  const program = gl.createProgram();
  for (const [type, text] of /** @type {[GLenum, string][]} */ ([[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]])) {
    const shader = /** @type {WebGLShader} */ (gl.createShader(type));
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(`WebGL: ${gl.getProgramInfoLog(program)}`);
  gl.useProgram(program);
  /**
   * @param {string} name
   * @param {number} numbers
   * @param {GLenum} type
   */
  const attribute = (name, numbers, type) => {
    const buffer = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    const location = gl.getAttribLocation(program, name);
    gl.enableVertexAttribArray(location);
    gl.vertexAttribPointer(location, numbers, type, type === gl.UNSIGNED_BYTE, 0, 0);
    return buffer;
  };
  const buffers = { position: attribute("position", 2, gl.FLOAT), colour: attribute("colour", 4, gl.UNSIGNED_BYTE) };
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  return { ...buffers, uniform: (/** @type {string} */ name) => gl.getUniformLocation(program, name) };
}
