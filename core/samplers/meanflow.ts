import { rfFromTrig } from "../diffusion/path.ts";
import { combine } from "../ops/lincomb.ts";
import type { Tensor } from "../tensor.ts";
import { expectEndsAtZero } from "./rcm.ts";
import type { Sampler } from "./sampler.ts";

/**
 * MeanFlow sampling: x_r = x_t - (t - r) u(x_t, t, r). `times` are TrigFlow times that descend and end with 0.
 * Shapes: x [B, ...] -> the same. Source: MeanFlow (arXiv 2505.13447) Algorithm 2.
 */
export function* meanFlow(x: Tensor, times: ArrayLike<number>): Sampler {
  expectEndsAtZero(times);
  const rf = Array.from(times, (t) => (t === 0 ? 0 : rfFromTrig(t)));
  for (let k = 0; k + 1 < rf.length; k++) {
    const [t, r] = [rf[k], rf[k + 1]];
    const u = yield { want: "mean velocity", x, tRf: t, rRf: r };
    x = combine([[1, x], [r - t, u]]);
  }
  return x;
}
