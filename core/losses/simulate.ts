import { at, evaluate, type Condition, type Denoiser } from "../diffusion/predict.ts";
import { combine } from "../ops/lincomb.ts";
import type { Tensor } from "../tensor.ts";
import { constant, type Tape, type Var } from "../tape.ts";

/** A backward simulation: start noise, the times after pi/2 and the noise of each re-noising. */
export interface SimulationDraws {
  /** Pure noise at tTrig = pi/2. */
  noise: Tensor;
  /** Candidate times of steps 2..n, each [B]; a step uses min(candidate, time before). */
  times: Float64Array[];
  /** Noise of steps 2..n. */
  renoise: Tensor[];
}

/**
 * Samples the student from pure noise over its own few steps. Only the last step is recorded (tape given).
 * Shapes: noise [B, T, C, Y, X] -> x0 of the same. Source: DMD2 backward simulation; rCM Algorithm 1.
 */
export function simulate(tape: Tape, student: Denoiser, condition: Condition, draws: SimulationDraws): Var {
  let t = new Float64Array(draws.times[0]?.length ?? draws.noise.shape[0]).fill(Math.PI / 2);
  let x = draws.noise;
  draws.times.forEach((candidates, k) => {
    const x0 = evaluate(student.x0, x, t, condition);
    t = candidates.map((v, b) => Math.min(v, t[b])) as Float64Array<ArrayBuffer>;
    x = combine([[t.map(Math.cos), x0], [t.map(Math.sin), draws.renoise[k]]]);
  });
  return student.x0(tape, constant(x), at(t), condition);
}
