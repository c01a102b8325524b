import { RcmError } from "../error.ts";
import { checkCount } from "./check.ts";

export interface Bootstrap {
  /** Standard deviation of the metric over resamples: its bootstrap standard error. */
  std: number;
  /** Mean over resamples; its difference from the metric estimates the bias. */
  mean: number;
  /** The metric of each resample, in order. */
  values: Float64Array;
}

/**
 * Bootstrap standard error of a metric over n rows; `metric` gets the n row indices of each resample (with repeats; the
 * array is reused). Not for nearest-neighbour metrics (PRDC) or Vendi: repeated rows are neighbours at distance 0 and
 * bias those.
 * Throws: E_ARG, E_NONFINITE if the metric of a resample is not finite.
 * Source: Efron 1979, "Bootstrap Methods: Another Look at the Jackknife".
 */
export function bootstrap(
  n: number,
  metric: (rows: Int32Array) => number,
  resamples: number,
  random: () => number,
): Bootstrap {
  const op = "bootstrap";
  checkCount(op, "n", n, 1);
  checkCount(op, "resamples", resamples, 2);
  const values = new Float64Array(resamples);
  const rows = new Int32Array(n);
  for (let b = 0; b < resamples; b++) {
    for (let i = 0; i < n; i++) rows[i] = draw(random, n);
    values[b] = metric(rows);
    if (!Number.isFinite(values[b])) {
      throw new RcmError("E_NONFINITE", `the metric of resample ${b} is not finite`, { op, got: String(values[b]) });
    }
  }
  let mean = 0;
  for (const value of values) mean += value;
  mean /= resamples;
  let square = 0;
  for (const value of values) square += (value - mean) ** 2;
  return { std: Math.sqrt(square / (resamples - 1)), mean, values };
}

/** Copies the given rows of x, in order. Shapes: x [*, d] -> [rows.length, d]. */
export function gatherRows(x: Float32Array, rows: ArrayLike<number>, d: number): Float32Array {
  const out = new Float32Array(rows.length * d);
  for (let i = 0; i < rows.length; i++) {
    const from = rows[i] * d;
    if (from < 0 || from + d > x.length) {
      throw new RcmError("E_ARG", "no such row", {
        op: "gatherRows",
        want: `0..${Math.floor(x.length / d) - 1}`,
        got: rows[i],
      });
    }
    out.set(x.subarray(from, from + d), i * d);
  }
  return out;
}

function draw(random: () => number, n: number): number {
  const u = random();
  if (!(u >= 0 && u < 1)) {
    throw new RcmError("E_ARG", "random() left its range", { op: "bootstrap", want: "[0, 1)", got: String(u) });
  }
  return Math.floor(u * n);
}
