import { RcmError } from "../error.ts";
import { checkFeatures } from "./check.ts";
import { eachTile, points } from "./distance.ts";
import { symmetricEigenvalues } from "./eigen.ts";
import { columnGram, matmulTransposed } from "./matrix.ts";

/** Similarity of two rows: the cosine of their angle, or exp(-gamma |x - y|^2). */
export type VendiKernel = { kernel: "cosine" } | { kernel: "rbf"; gamma: number };

/** The rbf kernel has no small factor, so its cost is that of an n x n eigenproblem. */
export const VENDI_RBF_MAX_ROWS = 512;

/**
 * Vendi score: the effective number of distinct rows, from 1 (all alike) to n (all dissimilar).
 * Shapes: x [n, d]. With the cosine kernel the smaller of [d, d] and [n, n] is decomposed: same nonzero eigenvalues.
 * Throws: E_ARG (also for a zero row under cosine, and n > 512 under rbf), E_SHAPE, E_NONFINITE.
 * Source: Friedman & Dieng 2023, "The Vendi Score", definition 3.1.
 */
export function vendiScore(x: Float32Array, n: number, d: number, options: VendiKernel = { kernel: "cosine" }): number {
  checkFeatures("vendiScore", x, [n, d]);
  if (options.kernel === "rbf") return expEntropy(symmetricEigenvalues(rbfKernel(x, n, d, options.gamma), n), n);
  const unit = unitRows(x, n, d);
  const gram = d < n ? columnGram(unit, n, d) : matmulTransposed(unit, unit, [n, d, n]);
  return expEntropy(symmetricEigenvalues(gram, Math.min(n, d)), n);
}

/**
 * Mean over labels of the Vendi score among rows of one label: how different samples of the same prompt are.
 * Shapes: x [n, d], labels [n]. A label with one row counts as 1, so give every label the same number of rows.
 * Throws: as vendiScore.
 */
export function withinPromptVendi(
  x: Float32Array,
  labels: ArrayLike<number>,
  [n, d]: readonly [number, number],
  options: VendiKernel = { kernel: "cosine" },
): number {
  const op = "withinPromptVendi";
  checkFeatures(op, x, [n, d]);
  if (labels.length !== n) {
    throw new RcmError("E_SHAPE", "one label a row is needed", { op, want: n, got: labels.length });
  }
  const groups = new Map<number, number[]>();
  for (let i = 0; i < n; i++) {
    const rows = groups.get(labels[i]);
    if (rows) rows.push(i);
    else groups.set(labels[i], [i]);
  }
  let sum = 0;
  for (const rows of groups.values()) {
    const group = new Float32Array(rows.length * d);
    rows.forEach((row, at) => group.set(x.subarray(row * d, (row + 1) * d), at * d));
    sum += vendiScore(group, rows.length, d, options);
  }
  return sum / groups.size;
}

function unitRows(x: Float32Array, n: number, d: number): Float64Array {
  const out = new Float64Array(n * d);
  for (let i = 0; i < n; i++) {
    let square = 0;
    for (let j = 0; j < d; j++) square += x[i * d + j] * x[i * d + j];
    if (square === 0) throw new RcmError("E_ARG", "a zero row has no direction", { op: "vendiScore", got: `row ${i}` });
    const norm = Math.sqrt(square);
    for (let j = 0; j < d; j++) out[i * d + j] = x[i * d + j] / norm;
  }
  return out;
}

function rbfKernel(x: Float32Array, n: number, d: number, gamma: number): Float64Array {
  const op = "vendiScore";
  if (!(gamma > 0 && Number.isFinite(gamma))) {
    throw new RcmError("E_ARG", "gamma is out of range", { op, want: "> 0", got: String(gamma) });
  }
  if (n > VENDI_RBF_MAX_ROWS) {
    throw new RcmError("E_ARG", "too many rows for the rbf kernel", { op, want: `<= ${VENDI_RBF_MAX_ROWS}`, got: n });
  }
  const p = points(x, n, d, x.subarray(0, d));
  const kernel = new Float64Array(n * n);
  eachTile(p, p, false, (i0, i1, j0, j1, out, stride) => {
    for (let i = i0; i < i1; i++) {
      for (let j = j0; j < j1; j++) {
        kernel[i * n + j] = Math.exp(-gamma * Math.max(0, out[(i - i0) * stride + (j - j0)]));
      }
    }
  });
  return kernel;
}

/** exp(-sum p log p) over p = eigenvalue / n; round-off below zero counts as zero. */
function expEntropy(eigenvalues: Float64Array, n: number): number {
  let entropy = 0;
  for (const value of eigenvalues) {
    const p = value / n;
    if (p > 0) entropy -= p * Math.log(p);
  }
  return Math.exp(entropy);
}
