import type { WanModel } from "../models/wan/model.ts";
import { latentShape, type Recipe } from "../recipe/schema.ts";
import type { Device, Tensor } from "../tensor.ts";
import { encodePrompts } from "../text/encode.ts";
import { sampleStudent, sampleTeacher } from "./sampler.ts";

/** Who samples: the student in n steps, or the guided teacher in n. */
export interface SampleJob {
  model: WanModel;
  role: "student" | "teacher";
  steps: number;
}

/** Network evaluations per sample of a job. */
export const evaluationsOf = (job: SampleJob, recipe: Recipe): number =>
  job.role === "student" ? job.steps : job.steps * ((recipe.teacher?.guidance ?? 1) === 1 ? 1 : 2);

export interface SampleSet {
  /** [n, C, T, Y, X] f32. */
  latents: Tensor;
  /** Wall time of the sampling alone. */
  seconds: number;
}

/** Samples every prompt in turn; sample i depends only on (seed, i), not on the batch size. */
export function samplePrompts(device: Device, job: SampleJob, recipe: Recipe, prompts: readonly string[], seed: number, batch: number, onBatch?: (done: number) => void): SampleSet {
  const out = device.empty([prompts.length, ...latentShape(recipe)], "f32");
  const each = latentShape(recipe).reduce((a, b) => a * b, 1);
  let seconds = 0;
  for (let first = 0; first < prompts.length; first += batch) {
    using _scope = device.scope();
    const part = prompts.slice(first, first + batch);
    const condition = encodePrompts(device, part, job.model.config);
    const negative = encodePrompts(device, [recipe.teacher?.negative_prompt ?? ""], job.model.config);
    const t0 = performance.now();
    const noise = { seed, first };
    const x = job.role === "student" ? sampleStudent(job.model, recipe, condition, job.steps, noise) : sampleTeacher(job.model, recipe, condition, negative, noise, job.steps);
    device.lib.sync();
    seconds += (performance.now() - t0) / 1000;
    out.window(first * each, [part.length, ...latentShape(recipe)]).set(x);
    onBatch?.(first + part.length);
  }
  return { latents: out, seconds };
}
