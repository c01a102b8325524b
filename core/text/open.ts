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
  /** Shape of the text that the network takes. */
  shape: TextShape;
  /** File or folder of precomputed embeddings; it takes precedence over the encoder. */
  stored?: string | null;
  /** Prompts of the stored embeddings, in order; by default names derived from the file. */
  prompts?: readonly string[];
  encoder?: EncoderFiles | null;
  /** Whether the network uses the byte-level encoder, which needs no files. */
  bytes?: boolean;
  onTruncated?: OnTruncated;
}

/** Opens a text encoder network, with a disk cache if `files` names one. Throws: E_IO, E_FORMAT, E_ARG. */
export function openEncoder(device: Device, files: EncoderFiles, o: EncoderOptions): NetworkEmbedder | CachedEmbedder {
  const network = NetworkEmbedder.open(device, files, o);
  return files.cache === null ? network : new CachedEmbedder(network, new PromptCache(files.cache));
}

/** Opens the embedder that a command's settings name. Throws: E_ARG when they name none. */
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

/** Opens the embedder of a recipe's prompts. Throws: E_RECIPE when it needs a text encoder and names none. */
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

/** The precomputed embedding of a recipe's negative prompt, as bf16; null if the recipe names no file. */
export function storedNegative({ teacher }: Recipe, shape: TextShape): HostTensor | null {
  return teacher?.negative_embed ? padded(readStoredText(teacher.negative_embed, shape), shape.length, "bf16") : null;
}
