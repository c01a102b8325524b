import { evaluate, type Denoiser } from "../diffusion/predict.ts";
import { combine } from "../ops/lincomb.ts";
import { sqLoss } from "../ops/sq_loss.ts";
import { perSample } from "../shape.ts";
import { sampleReduce, type Tensor } from "../tensor.ts";
import type { Tape } from "../tape.ts";
import { cosSin, finiteWeights, mean, norms, type LossResult, type OnNonfinite } from "./loss.ts";
import { simulate, type SimulationDraws } from "./simulate.ts";

export interface DmdDraws {
  simulation: SimulationDraws;
  /** Diffusion times [B] and noise at which critic and teacher denoise the sample. */
  tTrig: Float64Array;
  eps: Tensor;
}

/** The three networks of distribution matching; the critic is DMD2's fake score, the teacher its real score. */
export interface DmdNets {
  student: Denoiser;
  critic: Denoiser;
  teacher: Denoiser;
}

export interface DmdOptions {
  scale: number;
  onNonfinite: OnNonfinite;
}

/** Everything between the networks and the loss; tests read it. */
export interface DmdParts {
  G: Tensor;
  xt: Tensor;
  critic: Tensor;
  teacher: Tensor;
  q: Tensor;
  /** The denominator of q. */
  spread: Float64Array;
}

/**
 * Distribution matching: the student's sample G moves along the difference of the critic's and the guided teacher's
 * denoised estimates, loss = scale * sum (G - sg(G - q))^2,
 *
 *   q = (x0_critic - x0_teacher) / max(mean |G - x0_teacher|, 1e-5)
 * Shapes: latents [B, T, C, Y, X]. Grad: through the last simulation step only. Source: DMD2 (arXiv 2405.14867) eq. 3;
 * rCM eq. 12.
 */
export function dmdLoss(
  tape: Tape,
  { student, critic, teacher }: DmdNets,
  condition: Tensor,
  draws: DmdDraws,
  o: DmdOptions,
): LossResult & { parts: DmdParts } {
  const G = simulate(tape, student, condition, draws.simulation);
  const { c, s } = cosSin(draws.tTrig);
  const xt = combine([[c, G.x], [s, draws.eps]]);
  const x0Critic = evaluate(critic.x0, xt, draws.tTrig, condition);
  const x0Teacher = evaluate(teacher.x0, xt, draws.tTrig, condition);
  const n = perSample(G.x.shape);
  const spread = sampleReduce(combine([[1, G.x], [-1, x0Teacher]]), "abs").map((v) => Math.max(v / n, 1e-5));
  const q = combine([[spread.map((v) => 1 / v), x0Critic], [spread.map((v) => -1 / v), x0Teacher]]);
  const { weight, skipped } = finiteWeights("dmd", spread.map(() => o.scale), o.onNonfinite, { G: G.x, q });
  const loss = sqLoss(tape, G, { target: G.x, delta: combine([[-1, q]]), weight });
  return {
    loss,
    skipped,
    parts: { G: G.x, xt, critic: x0Critic, teacher: x0Teacher, q, spread },
    stats: { dmd_loss: mean(loss.x.values()), dmd_spread: mean(spread), dmd_q: mean(norms(q)) / Math.sqrt(n) },
  };
}
