import type { HostTensor } from "../dtype.ts";
import { readEmbedding } from "../data/prompts.ts";
import { RcmError } from "../error.ts";
import type { WanConfig } from "../models/wan/config.ts";
import type { Recipe } from "../recipe/schema.ts";
import type { Device, Tensor } from "../tensor.ts";
import { encodePrompts } from "../text/encode.ts";

/** Embeddings that a run needs beside its data, in the order [n, textLen, textDim]; zeros stand for what it never uses. */
export interface Texts {
  negative: Tensor;
  empty: Tensor;
  prompts: Tensor;
}

/** Widest text of the byte-level encoder; wider models want real embeddings. */
const BYTE_WIDTH = 64;

/** Encodes prompts as a recipe says. Shapes: [n, textLen, textDim]. Throws: E_RECIPE when the recipe names no encoder that this model's text fits. */
function encode(device: Device, recipe: Recipe, prompts: readonly string[], config: WanConfig): Tensor {
  if (config.textDim <= BYTE_WIDTH && !recipe.text) return encodePrompts(device, prompts, config);
  throw new RcmError("E_RECIPE", "the recipe has no text encoder", { op: "text" });
}

/** Negative, empty and sample prompts of a recipe; an encoder is opened once and freed before the networks are made. */
export function recipeTexts(device: Device, recipe: Recipe, config: WanConfig): Texts {
  const { teacher, objective, train, sample } = recipe;
  const { textLen, textDim } = config;
  const bytes = textDim <= BYTE_WIDTH && !recipe.text;
  const stored: HostTensor | null = teacher?.negative_embed ? readEmbedding(teacher.negative_embed, textLen, textDim) : null;
  const wantsNegative = bytes || (teacher !== null && teacher.guidance !== 1 && stored === null);
  const wantsEmpty = bytes || (objective.consistency?.kind === "flow" && objective.consistency.text_dropout > 0);
  const shown = train.sample_every > 0 ? (sample.prompts ?? []) : [];
  const wanted = [...(wantsNegative ? [teacher?.negative_prompt ?? ""] : []), ...(wantsEmpty ? [""] : []), ...shown];
  return device.persistent(() => {
    const all = wanted.length > 0 ? encode(device, recipe, wanted, config) : null;
    let next = 0;
    const take = (n: number): Tensor => {
      const first = next;
      next += n;
      return (all as Tensor).window(first * textLen * textDim, [n, textLen, textDim]);
    };
    const zeros = (): Tensor => device.zeros([1, textLen, textDim], "bf16");
    const negative = wantsNegative ? take(1) : stored ? device.fromHost({ ...stored, shape: [1, textLen, textDim] }) : zeros();
    const empty = wantsEmpty ? take(1) : zeros();
    return { negative, empty, prompts: shown.length > 0 ? take(shown.length) : zeros() };
  });
}
