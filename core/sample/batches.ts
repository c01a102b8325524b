import type { Network } from "../networks/network.ts";
import { latentShape, type Recipe } from "../recipe/schema.ts";
import type { Device, Tensor } from "../tensor.ts";
import type { TextSpec } from "../models/family.ts";
import type { HostTensor } from "../dtype.ts";
import { embedAll, textBatch, textsOf, type OnTruncated } from "../text/embedder.ts";
import { recipeEmbedder, storedNegative } from "../text/open.ts";
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
export async function samplePrompts(device: Device, job: SampleJob, recipe: Recipe, prompts: readonly string[], seed: number, batch: number, onBatch?: (done: number) => void, onTruncated?: OnTruncated): Promise<SampleSet> {
  const { text } = job.model.spec;
  const texts = await promptTexts(device, recipe, text, prompts, { guided: job.role === "teacher", onTruncated });
  const out = device.empty([prompts.length, ...latentShape(recipe)], "f32");
  const each = latentShape(recipe).reduce((a, b) => a * b, 1);
  let seconds = 0;
  for (let first = 0; first < prompts.length; first += batch) {
    using _scope = device.scope();
    const part = prompts.slice(first, first + batch);
    const condition = textBatch(device, textsOf(texts.known, part), text);
    const negative = texts.negative && textBatch(device, [texts.negative], text);
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

/** Embeddings of prompts and, for a guided teacher, of the negative prompt; the encoder is freed before this returns. */
async function promptTexts(
  device: Device,
  recipe: Recipe,
  text: TextSpec,
  prompts: readonly string[],
  o: { guided: boolean; onTruncated?: OnTruncated },
): Promise<{ known: Map<string, HostTensor>; negative: HostTensor | null }> {
  const stored = o.guided ? storedNegative(recipe, text) : null;
  const negativePrompt = recipe.teacher?.negative_prompt ?? "";
  using embedder = recipeEmbedder(device, recipe, text, o.onTruncated);
  const known = await embedAll(embedder, o.guided && !stored ? [...prompts, negativePrompt] : prompts);
  return { known, negative: o.guided ? (stored ?? textsOf(known, [negativePrompt])[0]) : null };
}
