import { RcmError } from "../error.ts";
import { sampleReduce, type Tensor } from "../tensor.ts";
import type { Var } from "../tape.ts";

/** A batch of clean latents and their text. Shapes: x0 [B, T, C, Y, X], condition [B, M, textDim]. */
export interface Batch {
  x0: Tensor;
  condition: Tensor;
}

/** Result of an objective: per-sample losses on the tape, scalars to log, and the number of dropped samples. */
export interface LossResult {
  /** [B] f64; the training gradient is that of its mean. */
  loss: Var;
  stats: Record<string, number>;
  skipped: number;
}

/** For a sample whose target is not finite: "raise" an error, "skip" and count it, or "zero" its loss (public code). */
export type OnNonfinite = "raise" | "skip" | "zero";

/**
 * Loss weights after the finite check: `weight`, or 0 for a sample (or frame) with a NaN or infinity in any tensor.
 * Throws: E_NONFINITE naming loss and tensor when `policy` is "raise".
 */
export function finiteWeights(
  op: string,
  weight: Float64Array,
  policy: OnNonfinite,
  tensors: Record<string, Tensor>,
): { weight: Float64Array; skipped: number } {
  const out = Float64Array.from(weight);
  for (const [name, tensor] of Object.entries(tensors)) {
    const bad = sampleReduce(tensor.view([weight.length, tensor.numel / weight.length]), "nonfinite");
    bad.forEach((count, b) => {
      if (count === 0) return;
      if (policy === "raise") {
        const message = `${name} of sample ${b} holds ${count} values that are not finite`;
        throw new RcmError("E_NONFINITE", message, { op, got: tensor.shape });
      }
      out[b] = 0;
    });
  }
  const dropped = out.reduce((n, w, b) => n + (w === 0 && weight[b] !== 0 ? 1 : 0), 0);
  return { weight: out, skipped: policy === "skip" ? dropped : 0 };
}

export const mean = (v: ArrayLike<number>): number => Array.from(v).reduce((a, b) => a + b, 0) / Math.max(1, v.length);

/** Per-sample L2 norms. Shapes: x [B, ...] -> [B]. */
export const norms = (x: Tensor): Float64Array => sampleReduce(x, "squares").map(Math.sqrt);

/** cos and sin of TrigFlow times. */
export const cosSin = (t: Float64Array): { c: Float64Array; s: Float64Array } => ({
  c: t.map(Math.cos),
  s: t.map(Math.sin),
});
