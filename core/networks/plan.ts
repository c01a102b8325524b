import { RcmError } from "../error.ts";
import type { Recipe } from "../recipe/schema.ts";
import type { FewStepMode, SamplerName, StudentForm, TeacherSampler } from "../samplers/list.ts";
import { expectDescending, fewStepTimes, midTimes, teacherTimes } from "../samplers/times.ts";
import { wantsSecondTime } from "./build.ts";

export type SampleRole = "student" | "teacher";

/**
 * How latents are sampled. Times descend: RF times of a teacher, without the final 0; TrigFlow times of a student,
 * down to 0.
 */
export interface SamplePlan {
  role: SampleRole;
  sampler: SamplerName;
  /** Whether a student's steps draw new noise. */
  mode: FewStepMode;
  /** Scale of classifier-free guidance; 1: none. */
  guidance: number;
  times: Float64Array;
}

export interface StudentSettings {
  steps: number;
  sigmaMax: number;
  /** Null: the defaults of samplers/times.ts. */
  midTimes: readonly number[] | null;
  form: StudentForm | "meanflow";
  mode: FewStepMode;
}

export interface TeacherSettings {
  steps: number;
  sampler: TeacherSampler;
  guidance: number;
  shift: number;
  sigmaMax: number;
}

/** Throws: E_ARG when the times do not fit the steps or do not descend. */
export function studentPlan({ steps, sigmaMax, midTimes: given, form, mode }: StudentSettings): SamplePlan {
  const mid = given ?? midTimes(steps);
  if (mid.length < steps - 1) {
    throw new RcmError("E_ARG", `${steps} steps need ${steps - 1} mid times`, { op: "sampler", got: mid });
  }
  const times = fewStepTimes(steps, sigmaMax, mid);
  expectDescending(times, mode === "sde");
  return { role: "student", sampler: form, mode, guidance: 1, times };
}

export const teacherPlan = ({ steps, sampler, guidance, shift, sigmaMax }: TeacherSettings): SamplePlan => ({
  role: "teacher",
  sampler,
  mode: "ode",
  guidance,
  times: teacherTimes(steps, shift, sigmaMax),
});

/** Settings of the caller; absent ones come from the recipe, else from the published values of Wan2.1. */
export type PlanSettings = { role: SampleRole } & Partial<StudentSettings & TeacherSettings>;

/** The network of a plan: one of a recipe or, without one, a published network. */
export interface PlanContext {
  recipe: Recipe | null;
  secondTime: boolean;
  /** Default noise level of a student's first step. */
  sigmaMax?: number;
}

const STUDENT_STEPS = 4;
const STUDENT_SIGMA_MAX = 80;
const TEACHER = { steps: 50, sampler: "unipc", guidance: 5, shift: 5, sigmaMax: 5000 } as const;

/** The plan of a network: settings override the recipe, which overrides the published values. Throws: E_ARG. */
export function samplePlan({ role, ...given }: PlanSettings, context: PlanContext): SamplePlan {
  const { recipe, secondTime, sigmaMax } = context;
  const s = recipe?.sample;
  if (role === "teacher") {
    const guidance = recipe?.teacher?.guidance ?? 1;
    const recipeSettings = s && {
      steps: s.teacher_steps,
      sampler: s.teacher_sampler,
      guidance,
      shift: s.teacher_shift,
      sigmaMax: s.teacher_sigma_max,
    };
    return teacherPlan({ ...TEACHER, ...recipeSettings, ...given });
  }
  if (secondTime && (given.form !== undefined || given.mode === "sde")) {
    const got = given.form ?? given.mode;
    throw new RcmError("E_ARG", "a MeanFlow student has one sampler, which is deterministic", { op: "sampler", got });
  }
  const steps = given.steps ?? STUDENT_STEPS;
  const listed = given.midTimes ?? s?.mid_times ?? null;
  return studentPlan({
    steps,
    sigmaMax: given.sigmaMax ?? s?.sigma_max ?? sigmaMax ?? STUDENT_SIGMA_MAX,
    midTimes: given.midTimes || (listed && listed.length >= steps - 1) ? listed : null,
    form: secondTime ? "meanflow" : (given.form ?? s?.form ?? "rf"),
    mode: secondTime ? "ode" : (given.mode ?? s?.mode ?? "sde"),
  });
}

/** The plan of a recipe's student or teacher. Throws: E_ARG. */
export const recipePlan = (recipe: Recipe, settings: PlanSettings): SamplePlan =>
  samplePlan(settings, { recipe, secondTime: settings.role === "student" && wantsSecondTime(recipe) });

/** The plans of a recipe's sample grids: one per step count, or the guided sampler of a flow recipe. */
export const gridPlans = (recipe: Recipe): SamplePlan[] =>
  recipe.objective.consistency?.kind === "flow"
    ? [recipePlan(recipe, { role: "teacher" })]
    : recipe.sample.steps.map((steps) => recipePlan(recipe, { role: "student", steps }));

export const stepsOf = ({ times }: SamplePlan): number => times.filter((t) => t > 0).length;

/** Network evaluations of one sample. */
export const evaluationsOf = (plan: SamplePlan): number => stepsOf(plan) * (plan.guidance === 1 ? 1 : 2);

/** A plan as fields of a manifest. */
export function planFields({ role, sampler, mode, guidance, times }: SamplePlan): Record<string, unknown> {
  const rounded = Array.from(times, (t) => Number(t.toPrecision(12)));
  if (role === "teacher") return { role, sampler, guidance, times: rounded };
  return { role, form: sampler, mode, times: rounded };
}
