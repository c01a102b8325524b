import type { Denoiser, VelocityNet } from "../diffusion/predict.ts";
import { drawRf, drawTrig } from "../diffusion/time.ts";
import { criticLoss } from "../losses/critic.ts";
import { dcmLoss } from "../losses/dcm.ts";
import { dmdLoss, type DmdDraws } from "../losses/dmd.ts";
import { flowLoss } from "../losses/flow.ts";
import type { Batch, LossResult } from "../losses/loss.ts";
import { meanflowLoss, type MeanFlowNets, type MeanFlowVelocity } from "../losses/meanflow.ts";
import { scmLoss } from "../losses/scm.ts";
import type { DmdRecipe, MeanflowRecipe, Recipe } from "../recipe/schema.ts";
import type { Tensor } from "../tensor.ts";
import type { Tape } from "../tape.ts";
import { Draws } from "./draws.ts";

export { Draws };

/** What a student or critic iteration can call on. Teacher-dependent parts are null when the recipe has none. */
export interface Networks {
  student: Denoiser;
  /** The student with f32-grade arithmetic; null when it has that anyway. */
  precise: Denoiser | null;
  velocity: VelocityNet;
  teacher: Denoiser | null;
  critic: Denoiser | null;
  meanflow: MeanFlowNets | null;
  /** Embedding of the empty prompt, [1, M, textDim]; used to drop text in flow matching. */
  empty: Tensor;
}

/** Phase of an iteration. Source: rCM Algorithm 1 and its public trainer. */
export interface Phase {
  kind: "student" | "critic";
  /** Iterations of pure consistency at the start. */
  warmup: number;
  /** Whether the score regularizer is on. */
  dmd: boolean;
}

export function phaseOf(recipe: Recipe, step: number): Phase {
  const { consistency, dmd } = recipe.objective;
  const warmup = consistency?.kind === "scm" && dmd ? consistency.tangent_warmup : 0;
  if (!dmd) return { kind: "student", warmup, dmd: false };
  if (step < warmup) return { kind: "student", warmup, dmd: false };
  return { kind: (step - warmup) % dmd.student_every === 0 ? "student" : "critic", warmup, dmd: true };
}

/** Student iterations before `step`, counted as the public trainer does (warm-up, then one per student_every). */
export function publicStudentCount(recipe: Recipe, step: number): number {
  const { dmd } = recipe.objective;
  const { warmup } = phaseOf(recipe, step);
  return !dmd || step < warmup ? step : warmup + Math.floor((step - warmup) / dmd.student_every);
}

/** Draws of a backward simulation of n steps and of the critic's judgement. */
export function drawDmd(dmd: DmdRecipe, draws: Draws, like: Tensor, n: number): DmdDraws {
  const B = like.shape[0];
  const fixed = dmd.fixed_times;
  const times = Array.from({ length: n - 1 }, (_, k) =>
    fixed ? new Float64Array(B).fill(fixed[k] as number) : draws.each("simulateTime", B, (rng) => drawTrig(dmd.times, rng), k),
  );
  return {
    simulation: { noise: draws.noise("simulateNoise", like), times, renoise: times.map((_, k) => draws.noise("simulateNoise", like, k + 1)) },
    tTrig: draws.each("dmdTime", B, (rng) => drawTrig(dmd.times, rng)),
    eps: draws.noise("dmdNoise", like),
  };
}

/** Losses of a student micro-batch: the trajectory objective, then the score regularizer. Each is backpropagated on its own. */
export function* studentLosses(tape: () => Tape, nets: Networks, recipe: Recipe, batch: Batch, draws: Draws, studentUpdates: number): Generator<{ tape: Tape; result: LossResult }> {
  const { consistency, dmd, on_nonfinite: onNonfinite } = recipe.objective;
  const phase = phaseOf(recipe, draws.step);
  const B = batch.x0.shape[0];
  if (consistency) {
    const t = tape();
    yield { tape: t, result: consistencyLoss(t, nets, recipe, batch, draws, B) };
  }
  if (dmd && phase.dmd) {
    const t = tape();
    const n = (studentUpdates % dmd.simulation_steps) + 1;
    yield { tape: t, result: dmdLoss(t, nets.student, nets.critic as Denoiser, nets.teacher as Denoiser, batch.condition, drawDmd(dmd, draws, batch.x0, n), { scale: dmd.scale, onNonfinite }) };
  }
}

function consistencyLoss(tape: Tape, nets: Networks, recipe: Recipe, batch: Batch, draws: Draws, B: number): LossResult {
  const c = recipe.objective.consistency as NonNullable<Recipe["objective"]["consistency"]>;
  const onNonfinite = recipe.objective.on_nonfinite;
  const eps = draws.noise("noise", batch.x0);
  const ramp = (warmup: number): number => (warmup > 0 ? Math.min(1, draws.step / warmup) : 1);
  switch (c.kind) {
    case "scm":
      return scmLoss(tape, nets.student, nets.teacher as Denoiser, batch, { tTrig: draws.each("time", B, (rng) => drawTrig(c.times, rng)), eps }, {
        tangent: c.tangent, fdSize: c.fd_size, passes: c.passes, ramp: ramp(c.tangent_warmup), rampScope: c.ramp_scope, scale: c.scale, precise: c.tangent_precision === "f32" ? nets.precise : null, onNonfinite,
      });
    case "dcm": {
      const u = draws.each("time", B, (rng) => rng.uniform());
      return dcmLoss(tape, nets.student, nets.teacher as Denoiser, batch, { u, eps }, { totalSteps: c.total_steps, skipSteps: c.skip_steps, shift: c.shift, scale: c.scale, onNonfinite });
    }
    case "meanflow":
      return meanflowLoss(tape, nets.meanflow as MeanFlowNets, batch, { ...drawIntervals(c, B, draws), eps }, {
        velocity: meanflowVelocity(c, recipe.teacher?.guidance ?? 1), tangent: c.tangent, fdSize: c.fd_size, normPower: c.norm_power, normConst: c.norm_const,
        ramp: ramp(c.tangent_warmup), spatialInvariance: c.spatial_invariance, form: c.form, minT: 0, maxT: 1, onNonfinite,
      });
    case "flow":
      return flowLoss(tape, nets.velocity, dropText(batch, nets.empty, c.text_dropout, draws), { tRf: draws.each("time", B, (rng) => drawRf(c.times, rng)), eps }, { onNonfinite });
  }
}

function meanflowVelocity(c: MeanflowRecipe, guidance: number): MeanFlowVelocity {
  if (c.velocity === "teacher") return { kind: "teacher", scale: guidance };
  if (c.velocity === "data") return { kind: "data" };
  return { kind: "self", scale: c.self_scale, mix: c.self_mix, start: 0, end: 1 };
}

/** Pairs r <= t of RF times; a share of samples has r = t. Source: MeanFlow section 4.1. */
function drawIntervals(c: MeanflowRecipe, B: number, draws: Draws): { t: Float64Array; r: Float64Array } {
  const r = new Float64Array(B);
  const t = draws.each("time", B, (rng, b) => {
    const [one, two] = [drawRf(c.times, rng), drawRf(c.times, rng)];
    const end = Math.max(one, two);
    r[b] = rng.uniform() < c.equal_fraction ? end : Math.min(one, two);
    return end;
  });
  return { t, r };
}

/** Replaces the text of a random share of samples by the empty prompt. */
function dropText(batch: Batch, empty: Tensor, share: number, draws: Draws): Batch {
  const { condition } = batch;
  const dropped = Array.from(draws.each("dropout", condition.shape[0], (rng) => rng.uniform()), (u) => u < share);
  if (!dropped.includes(true)) return batch;
  const out = condition.device.empty(condition.shape, condition.dtype).set(condition);
  dropped.forEach((drop, b) => drop && out.window(b * empty.numel, empty.shape).set(empty));
  return { x0: batch.x0, condition: out };
}

/** Loss of a critic micro-batch; the number of simulation steps follows the iteration. */
export function criticStep(tape: Tape, nets: Networks, recipe: Recipe, batch: Batch, draws: Draws, criticUpdates: number): LossResult {
  const dmd = recipe.objective.dmd as DmdRecipe;
  const n = (criticUpdates % dmd.simulation_steps) + 1;
  return criticLoss(tape, nets.critic as Denoiser, nets.student, batch.condition, drawDmd(dmd, draws, batch.x0, n), { onNonfinite: recipe.objective.on_nonfinite });
}
