import type { Tensor } from "../tensor.ts";
import { euler } from "./euler.ts";
import { meanFlow } from "./meanflow.ts";
import { rcmRf, rcmTrig } from "./rcm.ts";
import type { Renoise, Sampler } from "./sampler.ts";
import { unipc } from "./unipc.ts";

/** Initial state of every sampler: standard normal noise and its times (see samplers/times.ts). */
export interface SamplerStart {
  x: Tensor;
  times: Float64Array;
  renoise: Renoise | null;
}

interface SamplerEntry {
  /** Kind of network that it samples. Teachers are sampled at RF times, students at TrigFlow times down to 0. */
  net: "teacher" | "student" | "meanflow";
  start: (s: SamplerStart) => Sampler;
}

/** Every sampler. A new one is a file in this folder and a line here. */
export const SAMPLERS = {
  euler: { net: "teacher", start: ({ x, times }: SamplerStart) => euler(x, times) },
  unipc: { net: "teacher", start: ({ x, times }: SamplerStart) => unipc(x, times) },
  trig: { net: "student", start: ({ x, times, renoise }: SamplerStart) => rcmTrig(x, times, renoise) },
  rf: { net: "student", start: ({ x, times, renoise }: SamplerStart) => rcmRf(x, times, renoise) },
  meanflow: { net: "meanflow", start: ({ x, times }: SamplerStart) => meanFlow(x, times) },
} as const satisfies Record<string, SamplerEntry>;

export type SamplerName = keyof typeof SAMPLERS;
type NameOf<N> = { [S in SamplerName]: (typeof SAMPLERS)[S]["net"] extends N ? S : never }[SamplerName];
export type TeacherSampler = NameOf<"teacher">;
/** Parameterization of a few-step student's sampler. */
export type StudentForm = NameOf<"student">;

const names = Object.keys(SAMPLERS) as SamplerName[];
export const TEACHER_SAMPLERS = names.filter((n): n is TeacherSampler => SAMPLERS[n].net === "teacher");
export const STUDENT_FORMS = names.filter((n): n is StudentForm => SAMPLERS[n].net === "student");

/** How a few-step sampler re-noises: with new noise ("sde"), or with the noise that x and x0 imply ("ode"). */
export const FEW_STEP_MODES = ["sde", "ode"] as const;
export type FewStepMode = (typeof FEW_STEP_MODES)[number];
