// The camera of 3-D embeddings. It looks at a cube with sides of 1 around the origin, as Plotly's does, so that the
// place of every dot on the screen is known without asking Plotly.

/** @typedef {[number, number, number]} Vector */

const FIELD_OF_VIEW = Math.PI / 4; // top to bottom, as in Plotly
const SPAN = 1.1; // of the axes, for coordinates from 0 to 1: leaves room around the dots
const STEEPEST = 1.5; // radians above or below the horizon
const TURN_PER_PX = 0.008;
const [NEAREST, FARTHEST] = [0.3, 8];

/** The range of each of Plotly's axes. */
export const AXIS_RANGE = [0.5 - SPAN / 2, 0.5 + SPAN / 2];

export class Camera {
  constructor() {
    this.turn = 0; // radians around the vertical axis
    this.lift = 0; // radians above the horizon
    this.distance = 1; // of the eye from the centre
    /** @type {Vector} what the camera looks at */
    this.centre = [0, 0, 0];
    this.reset(1, 1);
  }

  /**
   * Far enough away that the cube fits into the view, even where that is higher than wide.
   * @param {number} width
   * @param {number} height
   */
  reset(width, height) {
    this.turn = Math.PI / 4;
    this.lift = 0.41;
    this.distance = 2.05 * Math.max(1, height / (width || 1)) ** 0.8;
    this.centre = [0, 0, -0.06];
  }

  /**
   * @param {number} dx pixels that the pointer moved
   * @param {number} dy
   */
  turnBy(dx, dy) {
    this.turn -= dx * TURN_PER_PX;
    this.lift = Math.min(STEEPEST, Math.max(-STEEPEST, this.lift + dy * TURN_PER_PX));
  }

  /**
   * Move the cube along with the pointer.
   * @param {number} dx
   * @param {number} dy
   * @param {number} height of the view
   */
  shiftBy(dx, dy, height) {
    const { right, up } = this.axes();
    const step = (2 * this.distance * Math.tan(FIELD_OF_VIEW / 2)) / (height || 1);
    this.centre = vector((d) => this.centre[d] + step * (dy * up[d] - dx * right[d]));
  }

  /**
   * Bring a point to the middle of the view.
   * @param {ArrayLike<number>} point x, y, z from 0 to 1
   */
  lookAt(point) {
    this.centre = vector((d) => (point[d] - 0.5) / SPAN);
  }

  /** @param {number} factor */
  zoom(factor) {
    this.distance = Math.min(FARTHEST, Math.max(NEAREST, this.distance / factor));
  }

  /** Directions of the view: to the right, up, and away from the eye. */
  axes() {
    const { turn, lift } = this;
    const [cosTurn, sinTurn, cosLift, sinLift] = [Math.cos(turn), Math.sin(turn), Math.cos(lift), Math.sin(lift)];
    return {
      right: /** @type {Vector} */ ([-sinTurn, cosTurn, 0]),
      up: /** @type {Vector} */ ([-sinLift * cosTurn, -sinLift * sinTurn, cosLift]),
      away: /** @type {Vector} */ ([-cosLift * cosTurn, -cosLift * sinTurn, -sinLift]),
    };
  }

  /** The same camera as Plotly's layout writes it. */
  plotly() {
    const { away } = this.axes();
    const [eye, centre] = [vector((d) => this.centre[d] - this.distance * away[d]), this.centre];
    /** @param {Vector} at */
    const named = ([x, y, z]) => ({ x, y, z });
    return { eye: named(eye), center: named(centre), up: { x: 0, y: 0, z: 1 } };
  }

  /**
   * Where points (x, y, z from 0 to 1, one after another) are on the screen, NaN behind the eye; and how far away.
   * @param {Float32Array} points
   * @param {number} width
   * @param {number} height
   */
  project(points, width, height) {
    const { right, up, away } = this.axes();
    const count = points.length / 3;
    const positions = new Float32Array(2 * count);
    const depths = new Float32Array(count);
    const focal = height / 2 / Math.tan(FIELD_OF_VIEW / 2);
    for (let row = 0; row < count; row++) {
      const at = vector((d) => (points[3 * row + d] - 0.5) / SPAN - this.centre[d]);
      const depth = this.distance + dot(at, away);
      const scale = depth > 0 ? focal / depth : NaN;
      positions[2 * row] = width / 2 + dot(at, right) * scale;
      positions[2 * row + 1] = height / 2 - dot(at, up) * scale;
      depths[row] = depth;
    }
    return { positions, depths };
  }
}

/**
 * @param {(dimension: number) => number} part
 * @returns {Vector}
 */
function vector(part) {
  return [part(0), part(1), part(2)];
}

/**
 * @param {Vector} a
 * @param {Vector} b
 */
function dot(a, b) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}
