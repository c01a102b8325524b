import { RcmError } from "../error.ts";
import { checkCount, checkFinite } from "./check.ts";

/** Eigenvalues in ascending order; row i of `vectors` [n, n] is the unit eigenvector of values[i]. */
export interface Eigen {
  values: Float64Array;
  vectors: Float64Array;
}

const EPS = 2 ** -52;
/** QL sweeps allowed per eigenvalue; two is typical. */
const MAX_SWEEPS = 60;
/** After this many, entries below the round-off of the whole matrix count as zero, even between tiny neighbours. */
const PATIENCE = 20;

/**
 * Decomposes a symmetric matrix, A = sum_i values[i] v_i v_i^T; only its upper triangle is read.
 * Shapes: a [n, n] row-major. Throws: E_ARG, E_SHAPE, E_NONFINITE; E_NONFINITE too if the QL sweeps do not converge.
 * Source: Golub & Van Loan, Matrix Computations (4th ed.), algorithms 8.3.1 and 8.3.3.
 */
export function symmetricEigen(a: Float64Array, n: number): Eigen {
  return decompose(a, n, true);
}

/**
 * Eigenvalues of a symmetric matrix in ascending order, several times faster than with vectors.
 * Throws: as symmetricEigen.
 */
export function symmetricEigenvalues(a: Float64Array, n: number): Float64Array {
  return decompose(a, n, false).values;
}

function decompose(a: Float64Array, n: number, wantVectors: boolean): Eigen {
  checkCount("symmetricEigen", "n", n, 1);
  checkFinite("symmetricEigen", "a", a, n * n);
  let largest = 0;
  for (let i = 0; i < n; i++) for (let j = i; j < n; j++) largest = Math.max(largest, Math.abs(a[i * n + j]));
  // Scaling by a power of two near the largest entry is exact and keeps squares from over- and underflow. Within
  // 2^+-1022 its reciprocal is finite too.
  const scale = largest === 0 ? 1 : 2 ** Math.max(-1022, Math.min(1022, Math.floor(Math.log2(largest))));
  const work = Float64Array.from(a, (value) => value / scale);
  const diag = new Float64Array(n);
  const off = new Float64Array(n);
  const beta = tridiagonalize(work, n, diag, off);
  const vectors = wantVectors ? accumulate(work, n, beta) : new Float64Array(0);
  implicitQl(diag, off, n, vectors);
  for (let i = 0; i < n; i++) diag[i] *= scale;
  return sortAscending(diag, vectors, n);
}

/**
 * Householder reduction to T = Q^T A Q in place; reflector k (v_k in row k right of the diagonal, factor beta[k]) acts
 * on coordinates k+1..n-1. All inner loops run along rows, since the matrix is row-major.
 */
function tridiagonalize(w: Float64Array, n: number, diag: Float64Array, off: Float64Array): Float64Array {
  const beta = new Float64Array(n);
  const p = new Float64Array(n);
  for (let k = 0; k < n - 1; k++) {
    const row = k * n;
    diag[k] = w[row + k];
    let tail = 0;
    for (let j = k + 2; j < n; j++) tail += w[row + j] * w[row + j];
    const head = w[row + k + 1];
    if (tail === 0) {
      off[k] = head;
      continue;
    }
    const norm = Math.sqrt(head * head + tail);
    // This sign avoids cancellation in the head of v.
    const alpha = head > 0 ? -norm : norm;
    const v0 = head - alpha;
    off[k] = alpha;
    w[row + k + 1] = v0;
    const b = 2 / (v0 * v0 + tail);
    beta[k] = b;

    // p = beta A v from the upper triangle only.
    p.fill(0, k + 1);
    for (let i = k + 1; i < n; i++) {
      const vi = w[row + i];
      const base = i * n;
      let sum = w[base + i] * vi;
      for (let j = i + 1; j < n; j++) {
        const aij = w[base + j];
        sum += aij * w[row + j];
        p[j] += aij * vi;
      }
      p[i] += sum;
    }
    let pv = 0;
    for (let i = k + 1; i < n; i++) {
      p[i] *= b;
      pv += p[i] * w[row + i];
    }
    const half = (b * pv) / 2;
    for (let i = k + 1; i < n; i++) p[i] -= half * w[row + i];
    for (let i = k + 1; i < n; i++) {
      const vi = w[row + i];
      const pi = p[i];
      const base = i * n;
      for (let j = i; j < n; j++) w[base + j] -= vi * p[j] + pi * w[row + j];
    }
  }
  diag[n - 1] = w[n * n - 1];
  return beta;
}

/** Z = Q^T from the stored reflectors, last one first: row i < k + 1 of the product so far is still that of I. */
function accumulate(w: Float64Array, n: number, beta: Float64Array): Float64Array {
  const z = new Float64Array(n * n);
  for (let i = 0; i < n; i++) z[i * n + i] = 1;
  for (let k = n - 2; k >= 0; k--) {
    if (beta[k] === 0) continue;
    const row = k * n;
    for (let i = k + 1; i < n; i++) {
      const base = i * n;
      let dot = 0;
      for (let j = k + 1; j < n; j++) dot += z[base + j] * w[row + j];
      dot *= beta[k];
      for (let j = k + 1; j < n; j++) z[base + j] -= dot * w[row + j];
    }
  }
  return z;
}

/**
 * QL with implicit Wilkinson shifts on the tridiagonal (diag, off); rotations are applied to the rows of z too, unless
 * it is empty.
 */
function implicitQl(diag: Float64Array, off: Float64Array, n: number, z: Float64Array): void {
  let norm = 0;
  for (let i = 0; i < n; i++) norm = Math.max(norm, Math.abs(diag[i]), Math.abs(off[i]));
  // Without this floor the iteration could fail to converge on round-off in a null space.
  const floor = EPS * EPS * norm;
  for (let l = 0; l < n; l++) {
    for (let sweep = 0; ; sweep++) {
      let m = l;
      const least = sweep < PATIENCE ? floor : EPS * norm;
      while (m < n - 1 && Math.abs(off[m]) > Math.max(least, EPS * (Math.abs(diag[m]) + Math.abs(diag[m + 1])))) m++;
      if (m === l) break;
      if (sweep === MAX_SWEEPS) {
        throw new RcmError("E_NONFINITE", "QL iteration did not converge", {
          op: "symmetricEigen",
          got: `row ${l} of ${n}`,
        });
      }
      qlSweep(diag, off, l, m, z, n);
    }
  }
}

function qlSweep(diag: Float64Array, off: Float64Array, l: number, m: number, z: Float64Array, n: number): void {
  const theta = (diag[l + 1] - diag[l]) / (2 * off[l]);
  const r0 = Math.sqrt(theta * theta + 1);
  let g = diag[m] - diag[l] + off[l] / (theta + (theta >= 0 ? r0 : -r0));
  let s = 1;
  let c = 1;
  let p = 0;
  for (let i = m - 1; i >= l; i--) {
    const f = s * off[i];
    const b = c * off[i];
    const r = Math.sqrt(f * f + g * g);
    off[i + 1] = r;
    if (r === 0) {
      // The bulge vanished: the matrix splits here, and the next sweep runs on the smaller block.
      diag[i + 1] -= p;
      off[m] = 0;
      return;
    }
    s = f / r;
    c = g / r;
    g = diag[i + 1] - p;
    const t = (diag[i] - g) * s + 2 * c * b;
    p = s * t;
    diag[i + 1] = g + p;
    g = c * t - b;
    if (z.length > 0) rotateRows(z, i * n, (i + 1) * n, n, c, s);
  }
  diag[l] -= p;
  off[l] = g;
  off[m] = 0;
}

function rotateRows(z: Float64Array, lower: number, upper: number, n: number, c: number, s: number): void {
  for (let k = 0; k < n; k++) {
    const f = z[upper + k];
    const e = z[lower + k];
    z[upper + k] = s * e + c * f;
    z[lower + k] = c * e - s * f;
  }
}

function sortAscending(diag: Float64Array, z: Float64Array, n: number): Eigen {
  const order = Array.from({ length: n }, (_, i) => i).sort((i, j) => diag[i] - diag[j]);
  const vectors = new Float64Array(z.length);
  if (z.length > 0) order.forEach((from, to) => vectors.set(z.subarray(from * n, (from + 1) * n), to * n));
  return { values: Float64Array.from(order, (i) => diag[i]), vectors };
}
