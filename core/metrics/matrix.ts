/** Rows, inner size and columns of a product. */
type Sizes = readonly [n: number, m: number, p: number];

/** Product of two row-major matrices. Shapes: a [n, m], b [m, p] -> [n, p]. */
export function matmul(a: Float64Array, b: Float64Array, [n, m, p]: Sizes): Float64Array {
  const out = new Float64Array(n * p);
  for (let i = 0; i < n; i++) {
    const to = i * p;
    for (let k = 0; k < m; k++) {
      const aik = a[i * m + k];
      const from = k * p;
      for (let j = 0; j < p; j++) out[to + j] += aik * b[from + j];
    }
  }
  return out;
}

/** Product of a with the transpose of b. Shapes: a [n, m], b [p, m] -> [n, p]. */
export function matmulTransposed(a: Float64Array, b: Float64Array, [n, m, p]: Sizes): Float64Array {
  const out = new Float64Array(n * p);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < p; j++) {
      let sum = 0;
      for (let k = 0; k < m; k++) sum += a[i * m + k] * b[j * m + k];
      out[i * p + j] = sum;
    }
  }
  return out;
}

/** Sum of the diagonal. Shapes: a [n, n]. */
export function trace(a: Float64Array, n: number): number {
  let sum = 0;
  for (let i = 0; i < n; i++) sum += a[i * n + i];
  return sum;
}

/** Gram matrix of the columns, X^T X, both triangles filled. Shapes: x [n, d] -> [d, d]. */
export function columnGram(x: Float64Array, n: number, d: number): Float64Array {
  const out = new Float64Array(d * d);
  for (let r = 0; r < n; r++) {
    const row = r * d;
    for (let i = 0; i < d; i++) {
      const xi = x[row + i];
      if (xi === 0) continue;
      const to = i * d;
      for (let j = i; j < d; j++) out[to + j] += xi * x[row + j];
    }
  }
  for (let i = 0; i < d; i++) for (let j = 0; j < i; j++) out[i * d + j] = out[j * d + i];
  return out;
}
