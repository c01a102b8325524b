import { at, guided, trigDenoiser, type VelocityNet } from "../diffusion/predict.ts";
import { RcmError } from "../error.ts";
import { euler, type Velocity } from "../samplers/euler.ts";
import { rcmRf, rcmTrig, type FewStepMode } from "../samplers/rcm.ts";
import { expectDescending, fewStepTimes, midTimes, teacherTimes } from "../samplers/schedule.ts";
import { unipc } from "../samplers/unipc.ts";
import type { Tensor } from "../tensor.ts";
import { constant, Tape } from "../tape.ts";
import { repeated } from "./build.ts";

/** How latents are drawn: by a few-step student, or by a guided teacher. Times descend; a student's are TrigFlow and end with 0. */
export type SamplePlan =
  | { role: "student"; form: "trig" | "rf"; mode: FewStepMode; times: Float64Array }
  | { role: "teacher"; sampler: "euler" | "unipc"; guidance: number; times: Float64Array };

export interface StudentSettings {
  steps: number;
  sigmaMax: number;
  /** Null: those of the public code, and ours beyond 4 steps. */
  midTimes: readonly number[] | null;
  form: "trig" | "rf";
  mode: FewStepMode;
}

/** Throws: E_ARG when the times do not fit the steps or do not descend. */
export function studentPlan({ steps, sigmaMax, midTimes: given, form, mode }: StudentSettings): SamplePlan {
  const mid = given ?? midTimes(steps);
  if (mid.length < steps - 1) throw new RcmError("E_ARG", `${steps} steps need ${steps - 1} mid times`, { op: "sampler", got: mid });
  const times = fewStepTimes(steps, sigmaMax, mid);
  expectDescending(times, mode === "sde");
  return { role: "student", form, mode, times };
}

export const teacherPlan = (steps: number, sampler: "euler" | "unipc", guidance: number, shift: number, sigmaMax: number): SamplePlan => ({
  role: "teacher",
  sampler,
  guidance,
  times: teacherTimes(steps, shift, sigmaMax),
});

export const stepsOf = (plan: SamplePlan): number => (plan.role === "student" ? plan.times.length - 1 : plan.times.length);

/** Network evaluations of one sample. */
export const evaluationsOfPlan = (plan: SamplePlan): number => stepsOf(plan) * (plan.role === "teacher" && plan.guidance !== 1 ? 2 : 1);

export interface PlanInputs {
  /** Standard normal start. Shapes: [B, C, T, Y, X]. */
  init: Tensor;
  /** Shapes: [B, M, textDim]; negative [1, M, textDim], used by a guided teacher only. */
  condition: Tensor;
  negative: Tensor | null;
  /** Noise of the k-th re-noising, shaped as init. */
  noise: (k: number) => Tensor;
  /** Wraps each step's network evaluations (to time them). */
  step: (k: number, body: () => Tensor) => Tensor;
}

/** Draws latents. Shapes: init [B, C, T, Y, X] -> the same. Source: rCM section 4.3; Wan2.1 samplers for the teacher. */
export function drawLatents(net: VelocityNet, plan: SamplePlan, { init, condition, negative, noise, step }: PlanInputs): Tensor {
  const all = (x: Tensor, t: number) => at(new Float64Array(x.shape[0]).fill(t));
  const inference = (x: Tensor): Tape => new Tape(x.device, { record: false });
  let k = 0;
  if (plan.role === "student") {
    if (plan.form === "rf") {
      return rcmRf((x, t) => step(k++, () => net(inference(x), constant(x), all(x, t), condition).x), init, plan.times, noise, plan.mode);
    }
    const denoiser = trigDenoiser(net);
    return rcmTrig((x, t) => step(k++, () => denoiser.x0(inference(x), constant(x), all(x, t), condition).x), init, plan.times, noise, plan.mode);
  }
  if (plan.guidance !== 1 && !negative) throw new RcmError("E_INTERNAL", "guidance needs the negative prompt's embedding", { op: "sampler" });
  const mixed = guided({ field: net, x0: net }, plan.guidance, (B) => repeated(negative as Tensor, B));
  const velocity: Velocity = (x, t) => step(k++, () => mixed.field(inference(x), constant(x), all(x, t), condition).x);
  return plan.sampler === "unipc" ? unipc(velocity, init, plan.times) : euler(velocity, init, plan.times);
}
