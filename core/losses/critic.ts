import { at, type Denoiser } from "../diffusion/predict.ts";
import { combine } from "../ops/lincomb.ts";
import { sqLoss } from "../ops/sq_loss.ts";
import { Tape, constant } from "../tape.ts";
import type { Tensor } from "../tensor.ts";
import type { DmdDraws } from "./dmd.ts";
import { cosSin, finiteWeights, mean, type LossResult, type OnNonfinite } from "./loss.ts";
import { simulate } from "./simulate.ts";

/**
 * Denoising loss of the critic (fake score) on samples G of the student: sum (G - x0_critic(x_t))^2 / sin^2(t), which
 * is flow matching in F. Shapes: latents [B, T, C, Y, X]. Grad: none reaches the student.
 * Source: DMD2; rCM section 4.
 */
export function criticLoss(
  tape: Tape,
  critic: Denoiser,
  student: Denoiser,
  condition: Tensor,
  draws: DmdDraws,
  o: { onNonfinite: OnNonfinite },
): LossResult & { x0: Tensor } {
  const G = simulate(new Tape(tape.device, { record: false }), student, condition, draws.simulation).x;
  const { c, s } = cosSin(draws.tTrig);
  const xt = combine([[c, G], [s, draws.eps]]);
  const x0 = critic.x0(tape, constant(xt), at(draws.tTrig), condition);
  const { weight, skipped } = finiteWeights("critic", s.map((v) => 1 / (v * v)), o.onNonfinite, { G, x0: x0.x });
  const loss = sqLoss(tape, x0, { target: G, delta: null, weight });
  return { loss, skipped, x0: x0.x, stats: { critic_loss: mean(loss.x.values()) } };
}
