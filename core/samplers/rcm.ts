import { RcmError } from "../error.ts";
import { rfFromTrig } from "../diffusion/path.ts";
import { combine } from "../ops/lincomb.ts";
import type { Tensor } from "../tensor.ts";
import type { Renoise, Sampler } from "./sampler.ts";

/**
 * Few-step sampling in TrigFlow: denoise, re-noise to the next time, and so on. `times` descend and end with 0.
 * Deterministic (`renoise` null): x <- cos(t') x0 + sin(t') (x - cos(t) x0) / sin(t).
 * Shapes: x [B, ...] -> clean latent. Source: rCM section 4.3, sCM multistep sampling.
 */
export function* rcmTrig(x: Tensor, times: ArrayLike<number>, renoise: Renoise | null): Sampler {
  expectEndsAtZero(times);
  for (let k = 0; ; k++) {
    const [t, next] = [times[k], times[k + 1]];
    const x0 = yield { want: "clean", x, tTrig: t };
    if (k === times.length - 2) return x0;
    if (renoise) x = combine([[Math.cos(next), x0], [Math.sin(next), renoise(k)]]);
    else x = combine([[Math.sin(t - next) / Math.sin(t), x0], [Math.sin(next) / Math.sin(t), x]]);
  }
}

/**
 * The same in rectified flow: x = noise * t0; x <- (1 - t')(x - t v) + t' noise'. Deterministic: x <- x - (t - t') v.
 * Differs from the trig form by sin(t0) at the start.
 */
export function* rcmRf(noise: Tensor, times: ArrayLike<number>, renoise: Renoise | null): Sampler {
  expectEndsAtZero(times);
  const rf = Array.from(times, (t) => (t === 0 ? 0 : rfFromTrig(t)));
  let x = combine([[rf[0], noise]]);
  for (let k = 0; k + 1 < rf.length; k++) {
    const [t, next] = [rf[k], rf[k + 1]];
    const v = yield { want: "velocity", x, tRf: t };
    if (next === 0 || !renoise) x = combine([[1, x], [next - t, v]]);
    else x = combine([[1 - next, x], [-(1 - next) * t, v], [next, renoise(k)]]);
  }
  return x;
}

/** Throws: E_ARG. */
export function expectEndsAtZero(times: ArrayLike<number>): void {
  if (times.length >= 2 && times[times.length - 1] === 0) return;
  throw new RcmError("E_ARG", "times end with 0", { op: "sampler", got: Array.from(times) });
}
