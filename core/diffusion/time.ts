import type { Rng } from "../rng.ts";
import { rfFromSigma, trigFromRf } from "./path.ts";

/** A distribution of diffusion times. */
export type TimeDistribution =
  /** sigma = exp(mean + std z), z standard normal. */
  | { kind: "log_normal"; mean: number; std: number }
  /** tRf = shift u / (1 + (shift - 1) u), u uniform; shift <= 0 means plain uniform. */
  | { kind: "uniform_shift"; shift: number };

/** tRf of a uniform u under a shift. Units: tRf in [0, 1]. */
export const shiftRf = (u: number, shift: number): number => (shift <= 0 ? u : (shift * u) / (1 + (shift - 1) * u));

/** One RF time. */
export function drawRf(d: TimeDistribution, rng: Rng): number {
  return d.kind === "log_normal"
    ? rfFromSigma(Math.exp(d.mean + d.std * rng.normal()))
    : shiftRf(rng.uniform(), d.shift);
}

/** One TrigFlow time. Units: [0, pi/2]. */
export function drawTrig(d: TimeDistribution, rng: Rng): number {
  return d.kind === "log_normal" ? Math.atan(Math.exp(d.mean + d.std * rng.normal())) : trigFromRf(drawRf(d, rng));
}
