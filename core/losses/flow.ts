import { at, type VelocityNet } from "../diffusion/predict.ts";
import { combine } from "../ops/lincomb.ts";
import { sqLoss } from "../ops/sq_loss.ts";
import { perSample } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { constant, type Tape } from "../tape.ts";
import { finiteWeights, mean, type Batch, type LossResult, type OnNonfinite } from "./loss.ts";

/**
 * Rectified-flow matching, the objective of teachers: mean over elements of (v(x_t, t) - (eps - x0))^2.
 * Shapes: latents [B, T, C, Y, X], tRf [B]. Source: Liu et al. 2022.
 */
export function flowLoss(
  tape: Tape,
  net: VelocityNet,
  { x0, condition }: Batch,
  draws: { tRf: Float64Array; eps: Tensor },
  o: { onNonfinite: OnNonfinite },
): LossResult {
  const xt = combine([[draws.tRf.map((t) => 1 - t), x0], [draws.tRf, draws.eps]]);
  const v = net(tape, constant(xt), at(draws.tRf), condition);
  const target = combine([[1, draws.eps], [-1, x0]]);
  const n = perSample(x0.shape);
  const { weight, skipped } = finiteWeights("flow", draws.tRf.map(() => 1 / n), o.onNonfinite, { v: v.x });
  const loss = sqLoss(tape, v, { target, delta: null, weight });
  return { loss, skipped, stats: { flow_loss: mean(loss.x.values()) } };
}
