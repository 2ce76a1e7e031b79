// Similarity, reasons, arithmetic and walks, all from the rounded vectors in the page.

class Search {
  constructor(data) {
    this.dimensions = data.dimensions;
    this.count = data.count;
    this.vectors = wholeVectors(data.vectors, this.dimensions);
    if (data.reasons) {
      this.reasonDimensions = data.reasons.dimensions;
      this.whole = wholeVectors(data.reasons.whole, this.reasonDimensions);
      this.without = wholeVectors(data.reasons.without, this.reasonDimensions);
    }
  }

  vector(row) {
    const start = row * this.dimensions;
    return this.vectors.slice(start, start + this.dimensions);
  }

  // Cosine similarity of `query` (unit length) with every tile.
  similarities(query) {
    const { dimensions, vectors } = this;
    const result = new Float32Array(this.count);
    for (let row = 0, at = 0; row < this.count; row++) {
      let sum = 0;
      for (let i = 0; i < dimensions; i++, at++) sum += query[i] * vectors[at];
      result[row] = sum;
    }
    return result;
  }

  // The `k` most similar rows that `allowed` lets through, best first.
  static best(similarities, k, allowed) {
    const rows = [];
    let worst = -Infinity;
    for (let row = 0; row < similarities.length; row++) {
      const value = similarities[row];
      if ((rows.length === k && value <= worst) || !allowed(row)) continue;
      let at = rows.length;
      while (at > 0 && similarities[rows[at - 1]] < value) at--;
      rows.splice(at, 0, row);
      if (rows.length > k) rows.pop();
      worst = similarities[rows[rows.length - 1]];
    }
    return rows;
  }

  // How much of the similarity of two tiles goes when a layer is blanked in both, for each layer.
  reasons(tiles, a, b) {
    const before = this.reasonCosine(a, -1, b, -1);
    return tiles.layers.map((_, layer) => {
      const [partA, partB] = [tiles.part(a, layer), tiles.part(b, layer)];
      return partA < 0 && partB < 0 ? 0 : before - this.reasonCosine(a, partA, b, partB);
    });
  }

  reasonCosine(a, partA, b, partB) {
    const size = this.reasonDimensions;
    const [first, atA] = partA < 0 ? [this.whole, a * size] : [this.without, partA * size];
    const [second, atB] = partB < 0 ? [this.whole, b * size] : [this.without, partB * size];
    let sum = 0;
    for (let i = 0; i < size; i++) sum += first[atA + i] * second[atB + i];
    return sum;
  }
}

// Vectors from {steps: whole numbers, scale: one a vector, mean}: mean + scale * steps, as Quantised in Python has it.
function wholeVectors(packed, size) {
  const [steps, scale, mean] = [arrayOf(packed.steps), arrayOf(packed.scale), arrayOf(packed.mean)];
  const result = new Float32Array(steps.length);
  for (let row = 0, at = 0; row < scale.length; row++) {
    for (let i = 0; i < size; i++, at++) result[at] = mean[i] + scale[row] * steps[at];
  }
  return result;
}

function unit(vector) {
  const length = Math.hypot(...vector) || 1;
  return vector.map((part) => part / length);
}

// The direction of a + b - c; parts that are not set are left out.
function combine(search, a, b, c) {
  const sum = new Float32Array(search.dimensions);
  for (const [row, sign] of [[a, 1], [b, 1], [c, -1]]) {
    if (row >= 0) search.vector(row).forEach((part, i) => { sum[i] += sign * part; });
  }
  return unit(sum);
}

// Rows on the way from a to b: at even steps of the great circle between them, the nearest tile not yet used.
function walkBetween(search, a, b, between) {
  const [from, to] = [search.vector(a), search.vector(b)];
  const cosine = Math.min(1, Math.max(-1, from.reduce((sum, part, i) => sum + part * to[i], 0)));
  const angle = Math.acos(cosine);
  const used = new Set([a, b]);
  const rows = [];
  for (let step = 1; step <= between; step++) {
    const share = step / (between + 1);
    const [weightA, weightB] = angle < 1e-3 ? [1 - share, share]
      : [Math.sin((1 - share) * angle), Math.sin(share * angle)];
    const point = unit(from.map((part, i) => weightA * part + weightB * to[i]));
    const [row] = Search.best(search.similarities(point), 1, (candidate) => !used.has(candidate));
    if (row === undefined) break;
    used.add(row);
    rows.push(row);
  }
  return [a, ...rows, b];
}
