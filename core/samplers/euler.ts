import { combine } from "../ops/lincomb.ts";
import type { Tensor } from "../tensor.ts";

/** Velocity of the probability-flow ODE at an RF time; one number, as a sampler moves a whole batch together. */
export type Velocity = (x: Tensor, tRf: number) => Tensor;

/** One Euler step of dx/dt = v from RF time `from` to `to`. Shapes: x [B, ...] -> the same. */
export const eulerStep = (x: Tensor, v: Tensor, from: number, to: number): Tensor => combine([[1, x], [to - from, v]]);

/** Integrates from the first time to 0; `times` descend and exclude the final 0. `onStep` sees each state before its step. */
export function euler(velocity: Velocity, x: Tensor, times: ArrayLike<number>, onStep?: (k: number, x: Tensor) => void): Tensor {
  const { device } = x;
  for (let k = 0; k < times.length; k++) {
    onStep?.(k, x);
    x = device.keep(() => eulerStep(x, velocity(x, times[k]), times[k], times[k + 1] ?? 0));
  }
  return x;
}
