/** Rows and columns of one tile: two 64-row blocks of 64 features are 64 KiB, so a tile fits the L2 cache. */
const BLOCK = 64;

/**
 * Feature rows prepared for tiled distances: f64, shifted by a common origin, padded with zero rows to a multiple of 4.
 */
export interface Points {
  n: number;
  d: number;
  x: Float64Array;
  /** Squared length of each row, summed in the same order as the dot products of `eachTile`. */
  square: Float64Array;
}

/** Converts rows to Points; subtracting an `origin` near the data avoids cancellation in |x|^2 + |y|^2 - 2 x.y. */
export function points(rows: Float32Array | Float64Array, n: number, d: number, origin: ArrayLike<number>): Points {
  const padded = Math.ceil(n / 4) * 4;
  const x = new Float64Array(padded * d);
  const square = new Float64Array(padded);
  for (let i = 0; i < n; i++) {
    let sum = 0;
    for (let j = 0; j < d; j++) {
      const value = rows[i * d + j] - origin[j];
      x[i * d + j] = value;
      sum += value * value;
    }
    square[i] = sum;
  }
  return { n, d, x, square };
}

/** Called with each squared distance block: out[(i - i0) * stride + (j - j0)] for i0 <= i < i1, j0 <= j < j1. */
export type TileVisitor = (i0: number, i1: number, j0: number, j1: number, out: Float64Array, stride: number) => void;

/**
 * Visits all squared distances between rows of a and rows of b tile by tile, so that the full matrix is never stored.
 * With `upper` (a and b the same points) tiles below the diagonal are skipped. Equal rows give exactly 0, and d(i, j)
 * equals d(j, i) bitwise, so that `<=` handles ties.
 */
export function eachTile(a: Points, b: Points, upper: boolean, visit: TileVisitor): void {
  const out = new Float64Array(BLOCK * BLOCK);
  for (let i0 = 0; i0 < a.n; i0 += BLOCK) {
    const i1 = Math.min(a.n, i0 + BLOCK);
    for (let j0 = upper ? i0 : 0; j0 < b.n; j0 += BLOCK) {
      const j1 = Math.min(b.n, j0 + BLOCK);
      for (let i = i0; i < i1; i += 2) {
        for (let j = j0; j < j1; j += 4) microTile(a, i, b, j, out, (i - i0) * BLOCK + (j - j0));
      }
      visit(i0, i1, j0, j1, out, BLOCK);
    }
  }
}

/** 2 x 4 distances at once: eight independent sums hide the latency of the multiplier and reuse each load. */
function microTile(a: Points, i: number, b: Points, j: number, out: Float64Array, at: number): void {
  const d = a.d;
  const x = a.x;
  const y = b.x;
  let p = i * d;
  let q = j * d;
  const end = p + d;
  let s00 = 0, s01 = 0, s02 = 0, s03 = 0;
  let s10 = 0, s11 = 0, s12 = 0, s13 = 0;
  for (; p < end; p++, q++) {
    const x0 = x[p];
    const x1 = x[p + d];
    const y0 = y[q];
    const y1 = y[q + d];
    const y2 = y[q + 2 * d];
    const y3 = y[q + 3 * d];
    s00 += x0 * y0;
    s01 += x0 * y1;
    s02 += x0 * y2;
    s03 += x0 * y3;
    s10 += x1 * y0;
    s11 += x1 * y1;
    s12 += x1 * y2;
    s13 += x1 * y3;
  }
  const u0 = a.square[i];
  const u1 = a.square[i + 1];
  const v0 = b.square[j];
  const v1 = b.square[j + 1];
  const v2 = b.square[j + 2];
  const v3 = b.square[j + 3];
  out[at] = u0 + v0 - 2 * s00;
  out[at + 1] = u0 + v1 - 2 * s01;
  out[at + 2] = u0 + v2 - 2 * s02;
  out[at + 3] = u0 + v3 - 2 * s03;
  out[at + BLOCK] = u1 + v0 - 2 * s10;
  out[at + BLOCK + 1] = u1 + v1 - 2 * s11;
  out[at + BLOCK + 2] = u1 + v2 - 2 * s12;
  out[at + BLOCK + 3] = u1 + v3 - 2 * s13;
}
