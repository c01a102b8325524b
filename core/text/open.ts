import { RcmError } from "../error.ts";
import type { HostTensor } from "../dtype.ts";
import type { TextSpec } from "../models/family.ts";
import type { Recipe } from "../recipe/schema.ts";
import type { Device } from "../tensor.ts";
import { CachedEmbedder, PromptCache } from "./cache.ts";
import { padded, type Embedder, type OnTruncated, type TextShape } from "./embedder.ts";
import { NetworkEmbedder, type EncoderFiles, type EncoderOptions } from "./encoder.ts";
import { openStored, readStoredText, StoredEmbedder } from "./stored.ts";
import { ByteEmbedder } from "./tokenizers/bytes.ts";

export interface EmbedderSettings {
  /** The text that the network reads. */
  shape: TextShape;
  /** File or folder of embeddings made before; it goes before the encoder. */
  stored?: string | null;
  /** What the stored embeddings stand for, in order; absent: names made of the file's. */
  prompts?: readonly string[];
  encoder?: EncoderFiles | null;
  /** Whether the network reads the byte-level encoder's text, for want of another. */
  bytes?: boolean;
  onTruncated?: OnTruncated;
}

/** A text encoder network, with its cache if it has one. Throws: E_IO, E_FORMAT, E_ARG. */
export function openEncoder(device: Device, files: EncoderFiles, o: EncoderOptions): NetworkEmbedder | CachedEmbedder {
  const network = NetworkEmbedder.open(device, files, o);
  return files.cache === null ? network : new CachedEmbedder(network, new PromptCache(files.cache));
}

/** The embedder of a command's settings. Throws: E_ARG when nothing can embed a prompt. */
export function openEmbedder(device: Device, o: EmbedderSettings): Embedder {
  const { shape, stored, encoder, onTruncated } = o;
  if (stored) return new StoredEmbedder(openStored(stored), shape, o.prompts);
  if (encoder) return openEncoder(device, encoder, { ...shape, onTruncated });
  if (o.bytes) return new ByteEmbedder(shape, onTruncated);
  const message = "no text encoder: give --text-encoder and --tokenizer, or --embeds and --negative-embeds";
  throw new RcmError("E_ARG", message, { op: "usage" });
}

/** The files of a recipe's text encoder. */
export const recipeEncoder = ({ text }: Recipe): EncoderFiles | null =>
  text ? { weights: text.encoder, tokenizer: text.tokenizer, cache: text.cache } : null;

/** The embedder of a recipe's prompts. Throws: E_RECIPE when it needs a text encoder and has none. */
export function recipeEmbedder(
  device: Device,
  recipe: Recipe,
  text: TextSpec,
  onTruncated?: OnTruncated,
): Embedder {
  const bytes = text.encoder === "bytes";
  if (!recipe.text && !bytes) {
    const message = "found no text, allowed a map with encoder and tokenizer: prompts of this model need an encoder";
    throw new RcmError("E_RECIPE", message, { op: "recipe" });
  }
  return openEmbedder(device, { shape: text, encoder: recipeEncoder(recipe), bytes, onTruncated });
}

/** The negative prompt's embedding that a recipe names a file for, as bf16; null: it is embedded as any prompt. */
export function storedNegative({ teacher }: Recipe, shape: TextShape): HostTensor | null {
  return teacher?.negative_embed ? padded(readStoredText(teacher.negative_embed, shape), shape.length, "bf16") : null;
}
