import { at, evaluate, type Denoiser } from "../diffusion/predict.ts";
import { trigFromRf } from "../diffusion/path.ts";
import { shiftRf } from "../diffusion/time.ts";
import { combine } from "../ops/lincomb.ts";
import { sqLoss } from "../ops/sq_loss.ts";
import type { Tensor } from "../tensor.ts";
import { constant, type Tape } from "../tape.ts";
import { finiteWeights, mean, type Batch, type LossResult, type OnNonfinite } from "./loss.ts";

export interface DcmOptions {
  /** Grid intervals (48). */
  totalSteps: number;
  /** Teacher Euler steps between the two student evaluations (k). */
  skipSteps: number;
  /** RF shift of the grid (5). */
  shift: number;
  scale: number;
  onNonfinite: OnNonfinite;
}

export interface DcmDraws {
  /** Uniform in [0, 1), [B]. */
  u: Float64Array;
  eps: Tensor;
}

/** The k+1 TrigFlow times of each sample, from the noisier to the cleaner. Shapes: u [B] -> k+1 arrays [B]. */
export function dcmTimes(u: Float64Array, o: Pick<DcmOptions, "totalSteps" | "skipSteps" | "shift">): Float64Array[] {
  const du = 1 / o.totalSteps;
  const scaled = u.map((v) => v * (1 - o.skipSteps * du));
  const timesAfter = (k: number): Float64Array => scaled.map((v) => trigFromRf(shiftRf(1 - (v + k * du), o.shift)));
  return Array.from({ length: o.skipSteps + 1 }, (_, k) => timesAfter(k));
}

/**
 * Discrete consistency distillation: the student's prediction at the start of a short teacher trajectory matches its
 * prediction at the end, loss = scale * sum (x0(x_t0, t0) - sg x0(x_tk, tk))^2.
 * Shapes: latents [B, T, C, Y, X]. Grad: none through the trajectory or the target.
 * Source: rCM section 5 (dCM baseline), LCM.
 */
export function dcmLoss(
  tape: Tape,
  student: Denoiser,
  teacher: Denoiser,
  { x0, condition }: Batch,
  { u, eps }: DcmDraws,
  o: DcmOptions,
): LossResult & { xk: Tensor; target: Tensor } {
  const times = dcmTimes(u, o);
  const start = combine([[times[0].map(Math.cos), x0], [times[0].map(Math.sin), eps]]);
  let xk = start;
  for (let k = 0; k + 1 < times.length; k++) {
    const step = times[k].map((t, b) => t - times[k + 1][b]);
    const field = evaluate(teacher.field, xk, times[k], condition);
    xk = combine([[1, xk], [step.map((h) => -h), field]]);
  }
  const target = evaluate(student.x0, xk, times[times.length - 1], condition);
  const prediction = student.x0(tape, constant(start), at(times[0]), condition);
  const checked = { prediction: prediction.x, target };
  const { weight, skipped } = finiteWeights("dcm", u.map(() => o.scale), o.onNonfinite, checked);
  const loss = sqLoss(tape, prediction, { target, delta: null, weight });
  return { loss, skipped, xk, target, stats: { dcm_loss: mean(loss.x.values()) } };
}
