import { RcmError } from "../error.ts";
import { checkCount, checkFinite } from "./check.ts";

export interface LabelAgreement {
  /** Share of rows whose largest logit is that of their label. */
  agreement: number;
  /** Bounds of the Wilson 95% interval of `agreement`. */
  low: number;
  high: number;
  /** Agreement among the rows of each label; NaN for a label without rows. */
  perClass: number[];
  /** confusion[label][predicted] counts rows. */
  confusion: number[][];
}

/** The 97.5% quantile of the standard normal distribution: a two-sided 95% interval. */
const Z95 = 1.959963984540054;

/**
 * How often a classifier predicts the requested label; ties go to the first class.
 * Shapes: logits [n, classes], labels [n] in 0..classes-1. Throws: E_ARG, E_SHAPE, E_NONFINITE.
 */
export function labelAgreement(
  logits: ArrayLike<number>,
  labels: ArrayLike<number>,
  n: number,
  classes: number,
): LabelAgreement {
  const op = "labelAgreement";
  checkCount(op, "n", n, 1);
  checkCount(op, "classes", classes, 1);
  checkFinite(op, "logits", logits, n * classes);
  if (labels.length !== n) {
    throw new RcmError("E_SHAPE", "one label a row is needed", { op, want: n, got: labels.length });
  }
  const confusion = Array.from({ length: classes }, () => new Array<number>(classes).fill(0));
  let hits = 0;
  for (let i = 0; i < n; i++) {
    const label = labels[i];
    if (!Number.isInteger(label) || label < 0 || label >= classes) {
      throw new RcmError("E_ARG", `labels[${i}] is not a class`, { op, want: `0..${classes - 1}`, got: String(label) });
    }
    let best = 0;
    for (let c = 1; c < classes; c++) if (logits[i * classes + c] > logits[i * classes + best]) best = c;
    confusion[label][best]++;
    if (best === label) hits++;
  }
  const perClass = confusion.map((row, label) => row[label] / row.reduce((sum, count) => sum + count, 0));
  return { agreement: hits / n, ...wilsonInterval(hits, n), perClass, confusion };
}

/**
 * Wilson score interval of a proportion, 95% unless another normal quantile z is given.
 * Throws: E_ARG. Source: Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference".
 */
export function wilsonInterval(hits: number, n: number, z = Z95): { low: number; high: number } {
  checkCount("wilsonInterval", "n", n, 1);
  checkCount("wilsonInterval", "hits", hits, 0);
  if (hits > n) {
    throw new RcmError("E_ARG", "more hits than rows", { op: "wilsonInterval", want: `<= ${n}`, got: hits });
  }
  const p = hits / n;
  const zz = z * z;
  const centre = (p + zz / (2 * n)) / (1 + zz / n);
  const half = (z / (1 + zz / n)) * Math.sqrt((p * (1 - p)) / n + zz / (4 * n * n));
  // For 0 or n hits the bound is exactly 0 or 1; do not let round-off exceed it.
  return { low: hits === 0 ? 0 : Math.max(0, centre - half), high: hits === n ? 1 : Math.min(1, centre + half) };
}
