import { drawTrig } from "../../diffusion/time.ts";
import { criticLoss } from "../../losses/critic.ts";
import { dmdLoss, type DmdDraws } from "../../losses/dmd.ts";
import type { LossResult } from "../../losses/loss.ts";
import type { DmdRecipe } from "../../recipe/schema.ts";
import type { Tensor } from "../../tensor.ts";
import type { Tape } from "../../tape.ts";
import type { Draws } from "../draws.ts";
import type { Iteration } from "../method.ts";

/** Steps of the backward simulation: 1, 2, .., N in turn. Source: rCM public trainer. */
const simulationSteps = (c: DmdRecipe, updates: number): number => (updates % c.simulation_steps) + 1;

/** Moves the student's samples from the critic's denoised estimate to the teacher's. Source: DMD2 eq. 3, rCM eq. 12. */
export function distributionMatching(
  { recipe, updates, nets, batch, draws }: Iteration,
  c: DmdRecipe,
  tape: Tape,
): LossResult {
  const drawn = drawDmd(c, draws, batch.x0, simulationSteps(c, updates));
  const networks = {
    student: nets.denoiser("student"),
    critic: nets.denoiser("critic"),
    teacher: nets.guided("teacher"),
  };
  const o = { scale: c.scale, onNonfinite: recipe.objective.on_nonfinite };
  return dmdLoss(tape, networks, batch.condition, drawn, o);
}

/** Keeps the critic a denoiser of the student's current samples. Source: DMD2 section 4. */
export function criticMatching(
  { recipe, updates, nets, batch, draws }: Iteration,
  c: DmdRecipe,
  tape: Tape,
): LossResult {
  const drawn = drawDmd(c, draws, batch.x0, simulationSteps(c, updates));
  const o = { onNonfinite: recipe.objective.on_nonfinite };
  return criticLoss(tape, nets.denoiser("critic"), nets.denoiser("student"), batch.condition, drawn, o);
}

/** Draws of a backward simulation of n steps, then the diffusion time and noise at which its sample is denoised. */
export function drawDmd(c: DmdRecipe, draws: Draws, like: Tensor, n: number): DmdDraws {
  const B = like.shape[0];
  const trig = (index: number): Float64Array => draws.each("simulateTime", B, (rng) => drawTrig(c.times, rng), index);
  const timesOf = (k: number): Float64Array => (c.fixed_times ? new Float64Array(B).fill(c.fixed_times[k]) : trig(k));
  const times = Array.from({ length: n - 1 }, (_, k) => timesOf(k));
  return {
    simulation: {
      noise: draws.noise("simulateNoise", like),
      times,
      renoise: times.map((_, k) => draws.noise("simulateNoise", like, k + 1)),
    },
    tTrig: draws.each("dmdTime", B, (rng) => drawTrig(c.times, rng)),
    eps: draws.noise("dmdNoise", like),
  };
}
