import { swappedShape } from "../data/latents.ts";
import type { HostTensor } from "../dtype.ts";
import { draw, stopPoint } from "../networks/draw.ts";
import type { SampleNet } from "../networks/net.ts";
import type { SamplePlan } from "../networks/plan.ts";
import { latentShape, type Recipe } from "../recipe/schema.ts";
import { noiseKeys } from "../samplers/noise.ts";
import type { Device, Tensor } from "../tensor.ts";
import { embedAll, textBatch, textsOf, type OnTruncated } from "../text/embedder.ts";
import { recipeEmbedder, storedNegative } from "../text/open.ts";

/** A network of a recipe and what it draws. */
export interface PromptJob {
  net: SampleNet;
  plan: SamplePlan;
  recipe: Recipe;
  prompts: readonly string[];
  /** Null: the recipe's own, where the plan is guided. */
  negativePrompt: string | null;
  seed: number;
  batch: number;
}

export interface PromptHooks {
  onBatch?: (done: number) => void;
  onTruncated?: OnTruncated;
  shouldStop?: () => boolean;
}

export interface SampleSet {
  /** [n, T, C, Y, X] f32. */
  latents: Tensor;
  /** Wall time of the sampling alone. */
  seconds: number;
}

/**
 * Draws the latents of every prompt. Sample i depends only on (seed, i), not on the batch size. Texts are embedded
 * first, and their encoder freed. Throws: E_NONFINITE; E_INTERRUPTED between two network evaluations.
 */
export async function drawPrompts(device: Device, job: PromptJob, hooks: PromptHooks = {}): Promise<SampleSet> {
  const { net, plan, recipe, prompts, seed, batch } = job;
  const { text } = net.spec;
  const texts = await promptTexts(device, job, hooks.onTruncated);
  const shape = swappedShape(latentShape(recipe));
  const out = device.empty([prompts.length, ...shape], "f32");
  const each = out.numel / prompts.length;
  let [seconds, done] = [0, 0];
  const stop = stopPoint(hooks.shouldStop, "sample", () => `stopped after ${done} of ${prompts.length}; none is written`);
  while (done < prompts.length) {
    using _scope = device.scope();
    const part = prompts.slice(done, done + batch);
    const condition = textBatch(device, textsOf(texts.known, part), text);
    const negative = texts.negative && textBatch(device, [texts.negative], text);
    const began = performance.now();
    const noise = noiseKeys(seed, done, part.length);
    const first = done;
    const nameOf = (b: number): string => `sample ${first + b} ("${part[b]}")`;
    const x = await draw(net, { plan, shape, noise, condition, negative }, { stopPoint: stop, nameOf });
    device.sync();
    seconds += (performance.now() - began) / 1000;
    out.window(done * each, [part.length, ...shape]).set(x);
    done += part.length;
    hooks.onBatch?.(done);
  }
  return { latents: out, seconds };
}

/** Embeddings of prompts and, for a guided plan, of the negative prompt; the encoder is freed before this returns. */
async function promptTexts(
  device: Device,
  { net, plan, recipe, prompts, negativePrompt }: PromptJob,
  onTruncated?: OnTruncated,
): Promise<{ known: Map<string, HostTensor>; negative: HostTensor | null }> {
  const { text } = net.spec;
  using embedder = recipeEmbedder(device, recipe, text, onTruncated);
  if (plan.guidance === 1) return { known: await embedAll(embedder, prompts), negative: null };
  const stored = negativePrompt === null ? storedNegative(recipe, text) : null;
  const unwanted = negativePrompt ?? recipe.teacher?.negative_prompt ?? "";
  const known = await embedAll(embedder, stored ? prompts : [...prompts, unwanted]);
  return { known, negative: stored ?? textsOf(known, [unwanted])[0] };
}
