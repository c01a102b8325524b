import type { Network } from "../networks/network.ts";
import { latentShape, type Recipe } from "../recipe/schema.ts";
import type { Device, Tensor } from "../tensor.ts";
import { sampleTexts, storedNegative } from "../text/recipe_texts.ts";
import { sampleStudent, sampleTeacher } from "../networks/sampler.ts";

/** Who samples: the student in n steps, or the guided teacher in n. */
export interface SampleJob {
  model: Network;
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

/** Samples every prompt in turn; sample i depends only on (seed, i), not on the batch size. Texts are embedded first, and their encoder freed. */
export async function samplePrompts(device: Device, job: SampleJob, recipe: Recipe, prompts: readonly string[], seed: number, batch: number, onBatch?: (done: number) => void): Promise<SampleSet> {
  const { text } = job.model.spec;
  const guided = job.role === "teacher" && !recipe.teacher?.negative_embed;
  const negativePrompt = recipe.teacher?.negative_prompt ?? "";
  const texts = await sampleTexts(device, recipe, text, guided ? [...prompts, negativePrompt] : prompts);
  const out = device.empty([prompts.length, ...latentShape(recipe)], "f32");
  const each = latentShape(recipe).reduce((a, b) => a * b, 1);
  let seconds = 0;
  for (let first = 0; first < prompts.length; first += batch) {
    using _scope = device.scope();
    const part = prompts.slice(first, first + batch);
    const condition = texts(part);
    const negative = job.role === "teacher" ? (storedNegative(device, recipe, text) ?? texts([negativePrompt])) : null;
    const t0 = performance.now();
    const noise = { seed, first };
    const x = negative ? sampleTeacher(job.model, recipe, condition, negative, noise, job.steps) : sampleStudent(job.model, recipe, condition, job.steps, noise);
    device.sync();
    seconds += (performance.now() - t0) / 1000;
    out.window(first * each, [part.length, ...latentShape(recipe)]).set(x);
    onBatch?.(first + part.length);
  }
  return { latents: out, seconds };
}
