import { drawRf } from "../../diffusion/time.ts";
import { flowLoss } from "../../losses/flow.ts";
import type { Batch } from "../../losses/loss.ts";
import type { FlowRecipe } from "../../recipe/schema.ts";
import type { Tensor } from "../../tensor.ts";
import type { Draws } from "../draws.ts";
import { single, type Method } from "../method.ts";

/** Rectified-flow matching, the objective that teachers are trained with. Source: Liu et al. 2022. */
export const flow = (c: FlowRecipe): Method =>
  single(({ recipe, nets, batch, draws }, tape) => {
    const eps = draws.noise("noise", batch.x0);
    const tRf = draws.each("time", batch.x0.shape[0], (rng) => drawRf(c.times, rng));
    const dropped = dropText(batch, nets.empty, c.text_dropout, draws);
    const o = { onNonfinite: recipe.objective.on_nonfinite };
    return flowLoss(tape, nets.velocity("student"), dropped, { tRf, eps }, o);
  });

/** Replaces the text of each sample by the empty prompt with probability `p`, for classifier-free guidance. */
function dropText(batch: Batch, empty: Tensor, p: number, draws: Draws): Batch {
  const { condition } = batch;
  const dropped = Array.from(draws.each("dropout", condition.shape[0], (rng) => rng.uniform()), (u) => u < p);
  if (!dropped.includes(true)) return batch;
  const out = condition.device.empty(condition.shape, condition.dtype).set(condition);
  dropped.forEach((drop, b) => drop && out.window(b * empty.numel, empty.shape).set(empty));
  return { x0: batch.x0, condition: out };
}
