import { RcmError } from "../error.ts";
import { checkCount, checkFeatures, checkFinite } from "./check.ts";
import { symmetricEigen, symmetricEigenvalues } from "./eigen.ts";
import { columnGram, matmul, matmulTransposed, trace } from "./matrix.ts";

/** First two moments of a feature set. Shapes: mean [d], cov [d, d]. */
export interface FeatureStats {
  mean: Float64Array;
  /** Unbiased: divided by n - 1. */
  cov: Float64Array;
  n: number;
}

/**
 * Mean and unbiased covariance of feature rows, in f64.
 * Shapes: x [n, d], n >= 2. Throws: E_ARG, E_SHAPE, E_NONFINITE.
 */
export function featureStats(x: Float32Array | Float64Array, n: number, d: number): FeatureStats {
  checkFeatures("featureStats", x, [n, d], 2);
  const mean = new Float64Array(d);
  for (let i = 0; i < n; i++) for (let j = 0; j < d; j++) mean[j] += x[i * d + j];
  for (let j = 0; j < d; j++) mean[j] /= n;
  // Two passes: centring first avoids cancellation when the mean is large.
  const centred = new Float64Array(n * d);
  for (let i = 0; i < n; i++) for (let j = 0; j < d; j++) centred[i * d + j] = x[i * d + j] - mean[j];
  const cov = columnGram(centred, n, d);
  for (let i = 0; i < cov.length; i++) cov[i] /= n - 1;
  return { mean, cov, n };
}

/**
 * Frechet distance |mu1 - mu2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2) of two Gaussians; never negative.
 * Units: squared feature units, as the published FID. Throws: E_ARG, E_SHAPE, E_NONFINITE.
 * Source: Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule", eq. 6.
 */
export function frechetDistance(a: FeatureStats, b: FeatureStats): number {
  const op = "frechetDistance";
  const d = a.mean.length;
  checkCount(op, "feature count", d, 1);
  if (b.mean.length !== d) {
    throw new RcmError("E_SHAPE", "the feature counts differ", { op, want: d, got: b.mean.length });
  }
  for (const [name, stats] of [["a", a], ["b", b]] as const) {
    checkFinite(op, `${name}.mean`, stats.mean, d);
    checkFinite(op, `${name}.cov`, stats.cov, d * d);
  }
  let shift = 0;
  for (let j = 0; j < d; j++) shift += (a.mean[j] - b.mean[j]) ** 2;
  const spread = trace(a.cov, d) + trace(b.cov, d) - 2 * traceOfRootProduct(a.cov, b.cov, d);
  return Math.max(0, shift + spread);
}

/** tr (C1^1/2 C2 C1^1/2)^1/2, for positive semi-definite matrices. */
function traceOfRootProduct(c1: Float64Array, c2: Float64Array, d: number): number {
  const { values, vectors } = symmetricEigen(c1, d);
  // In the eigenbasis of C1 the middle matrix is L^1/2 (V C2 V^T) L^1/2: the same eigenvalues with one product fewer.
  const middle = matmulTransposed(matmul(vectors, c2, [d, d, d]), vectors, [d, d, d]);
  const root = values.map((value) => Math.sqrt(Math.max(0, value)));
  for (let i = 0; i < d; i++) for (let j = 0; j < d; j++) middle[i * d + j] *= root[i] * root[j];
  let sum = 0;
  for (const value of symmetricEigenvalues(middle, d)) sum += Math.sqrt(Math.max(0, value));
  return sum;
}
