import { combine } from "../ops/lincomb.ts";
import type { Tensor } from "../tensor.ts";
import type { Sampler } from "./sampler.ts";

/**
 * Euler steps of dx/dt = v from the first RF time to 0; `times` descend and exclude the final 0.
 * Shapes: x [B, ...] -> the same.
 */
export function* euler(x: Tensor, times: ArrayLike<number>): Sampler {
  for (let k = 0; k < times.length; k++) {
    const v = yield { want: "velocity", x, tRf: times[k] };
    x = combine([[1, x], [(times[k + 1] ?? 0) - times[k], v]]);
  }
  return x;
}
