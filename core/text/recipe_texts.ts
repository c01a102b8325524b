import type { HostTensor } from "../dtype.ts";
import { readEmbedding } from "./prompts.ts";
import { encodeTexts, type EncoderFiles } from "./encode_texts.ts";
import { RcmError } from "../error.ts";
import type { TextSpec } from "../models/family.ts";
import type { Recipe } from "../recipe/schema.ts";
import type { Device, Tensor } from "../tensor.ts";
import { encodePrompts } from "./encode.ts";

/** Embeddings that a run needs beside its data, in the order [n, textLen, textDim]; zeros stand for what it never uses. */
export interface Texts {
  negative: Tensor;
  empty: Tensor;
  prompts: Tensor;
}

/** Negative, empty and sample prompts of a recipe; an encoder is opened once and freed before the networks are made. */
export async function recipeTexts(device: Device, recipe: Recipe, spec: TextSpec): Promise<Texts> {
  const { teacher, objective, train, sample, text } = recipe;
  const { length: textLen, width: textDim } = spec;
  const bytes = !text && spec.encoder === "bytes";
  const stored = teacher?.negative_embed ? readEmbedding(teacher.negative_embed, textLen, textDim) : null;
  const wantsNegative = bytes || (teacher !== null && teacher.guidance !== 1 && stored === null);
  const wantsEmpty = bytes || (objective.consistency?.kind === "flow" && objective.consistency.text_dropout > 0);
  const shown = train.sample_every > 0 ? (sample.prompts ?? []) : [];
  const wanted = [...(wantsNegative ? [teacher?.negative_prompt ?? ""] : []), ...(wantsEmpty ? [""] : []), ...shown];
  const hosts = wanted.length === 0 || bytes ? [] : await encodeTexts(device, expectText(recipe), wanted, textLen);
  return device.persistent(() => {
    const all = wanted.length === 0 ? null : bytes ? encodePrompts(device, wanted, spec) : joined(device, hosts);
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

/**
 * Embeddings of prompts for sampling: the recipe's text encoder, opened once for all of `prompts` and freed before this returns, or the
 * byte-level encoder of small networks. Gives tensors of the asking scope. Shapes: part of the prompts -> [n, textLen, textDim].
 */
export async function sampleTexts(device: Device, recipe: Recipe, spec: TextSpec, prompts: readonly string[]): Promise<(part: readonly string[]) => Tensor> {
  if (!recipe.text && spec.encoder === "bytes") return (part) => encodePrompts(device, part, spec);
  const wanted = [...new Set(prompts)];
  const hosts = await encodeTexts(device, expectText(recipe), wanted, spec.length);
  const known = new Map(wanted.map((prompt, i) => [prompt, hosts[i]]));
  return (part) => joined(device, part.map((prompt) => known.get(prompt) as HostTensor));
}

/** The negative prompt's embedding that a recipe names a file for; null: it is encoded as any prompt. Shapes: [1, textLen, textDim]. */
export function storedNegative(device: Device, { teacher }: Recipe, { length: textLen, width: textDim }: TextSpec): Tensor | null {
  return teacher?.negative_embed ? joined(device, [readEmbedding(teacher.negative_embed, textLen, textDim)]) : null;
}

function expectText({ text }: Recipe): EncoderFiles {
  if (!text) throw new RcmError("E_RECIPE", "found no text, allowed a map with encoder and tokenizer: prompts of this model need an encoder", { op: "recipe" });
  return { weights: text.encoder, tokenizer: text.tokenizer, cache: text.cache };
}

/** Shapes: n of [M, D] -> [n, M, D]. */
function joined(device: Device, hosts: HostTensor[]): Tensor {
  const [M, D] = hosts[0].shape;
  const out = device.empty([hosts.length, M, D], hosts[0].dtype);
  hosts.forEach((host, b) => out.window(b * M * D, [M, D]).setHost(host));
  return out;
}
