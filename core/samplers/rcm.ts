import { RcmError } from "../error.ts";
import { rfFromTrig } from "../diffusion/path.ts";
import { combine } from "../ops/lincomb.ts";
import type { Tensor } from "../tensor.ts";
import type { Velocity } from "./euler.ts";

/** Clean latent at a TrigFlow time (one number for the batch). */
export type X0AtTrig = (x: Tensor, tTrig: number) => Tensor;

/** How a step goes on from the clean latent: `sde` with fresh noise, `ode` with the noise that x and the clean latent imply. */
export const FEW_STEP_MODES = ["sde", "ode"] as const;
export type FewStepMode = (typeof FEW_STEP_MODES)[number];

/**
 * Few-step sampling in TrigFlow: denoise, re-noise to the next time, and so on. `times` descend and end with 0;
 * noise(k) is the noise of the k-th re-noising. With "ode": x <- cos(t') x0 + sin(t') (x - cos(t) x0) / sin(t).
 * Shapes: x [B, ...] -> clean latent. Source: rCM section 4.3, sCM multistep sampling.
 */
export function rcmTrig(x0At: X0AtTrig, init: Tensor, times: ArrayLike<number>, noise: (k: number) => Tensor, mode: FewStepMode = "sde"): Tensor {
  expectEndsAtZero(times);
  let x = init;
  const last = times.length - 2;
  for (let k = 0; k <= last; k++) {
    using scope = x.device.scope();
    const [t, next] = [times[k], times[k + 1]];
    const x0 = x0At(x, t);
    const again = (): Tensor => {
      if (mode === "sde") return combine([[Math.cos(next), x0], [Math.sin(next), noise(k)]]);
      return combine([[Math.sin(t - next) / Math.sin(t), x0], [Math.sin(next) / Math.sin(t), x]]);
    };
    x = scope.keep(k === last ? x0 : again());
  }
  return x;
}

/**
 * The same in rectified flow: x = noise * t0; x <- (1 - t')(x - t v) + t' noise', with "ode" x <- x - (t - t') v. Differs from
 * the trig form by sin(t0) at the start.
 */
export function rcmRf(velocity: Velocity, init: Tensor, times: ArrayLike<number>, noise: (k: number) => Tensor, mode: FewStepMode = "sde"): Tensor {
  expectEndsAtZero(times);
  const rf = Array.from(times, (t) => (t === 0 ? 0 : rfFromTrig(t)));
  let x = combine([[rf[0], init]]);
  for (let k = 0; k + 1 < rf.length; k++) {
    using scope = x.device.scope();
    const [t, next] = [rf[k], rf[k + 1]];
    const v = velocity(x, t);
    if (next === 0 || mode === "ode") x = scope.keep(combine([[1, x], [next - t, v]]));
    else x = scope.keep(combine([[1 - next, x], [-(1 - next) * t, v], [next, noise(k)]]));
  }
  return x;
}

function expectEndsAtZero(times: ArrayLike<number>): void {
  if (times.length < 2 || times[times.length - 1] !== 0) throw new RcmError("E_ARG", "times end with 0", { op: "rcm sampler", got: Array.from(times) });
}
