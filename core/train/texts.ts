import type { HostTensor } from "../dtype.ts";
import type { TextSpec } from "../models/family.ts";
import type { Recipe } from "../recipe/schema.ts";
import type { Device, Tensor } from "../tensor.ts";
import { embedAll, textBatch, textsOf, type OnTruncated } from "../text/embedder.ts";
import { recipeEmbedder, storedNegative } from "../text/open.ts";

/** Text embeddings that are not part of the data; zeros when unused. Shapes: [n, length, width] each. */
export interface Texts {
  negative: Tensor;
  empty: Tensor;
  prompts: Tensor;
}

/** Negative, empty and sample prompts of a recipe; an encoder is opened once and freed before the networks are made. */
export async function trainingTexts(
  device: Device,
  recipe: Recipe,
  text: TextSpec,
  onTruncated?: OnTruncated,
): Promise<Texts> {
  const { teacher, objective, train, sample } = recipe;
  const stored = storedNegative(recipe, text);
  const guided = teacher !== null && teacher.guidance !== 1;
  const drops = objective.consistency?.kind === "flow" && objective.consistency.text_dropout > 0;
  const wanted = {
    negative: guided && stored === null ? [teacher.negative_prompt] : [],
    empty: drops ? [""] : [],
    prompts: train.sample_every > 0 ? (sample.prompts ?? []) : [],
  };
  const all = Object.values(wanted).flat();
  let known = new Map<string, HostTensor>();
  if (all.length > 0) {
    using embedder = recipeEmbedder(device, recipe, text, onTruncated);
    known = await embedAll(embedder, all);
  }
  return device.persistent(() => {
    const zeros = (): Tensor => device.zeros([1, text.length, text.width], "bf16");
    const of = (prompts: readonly string[]): Tensor =>
      prompts.length === 0 ? zeros() : textBatch(device, textsOf(known, prompts), text);
    const negative = stored ? textBatch(device, [stored], text) : of(wanted.negative);
    return { negative, empty: of(wanted.empty), prompts: of(wanted.prompts) };
  });
}
