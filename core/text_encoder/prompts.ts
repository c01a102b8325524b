import type { HostTensor } from "../dtype.ts";
import type { Device } from "../tensor.ts";
import { padRows, PromptEncoder } from "./encoder.ts";

/** Files of a text encoder. */
export interface EncoderFiles {
  weights: string;
  tokenizer: string;
  /** Folder that keeps embeddings; null: none. */
  cache: string | null;
}

/** A function from prompts to bf16 embeddings on the host; the encoder's memory is free again after each call. Shapes: [512, D] each. */
export function promptEmbedder(device: Device, files: EncoderFiles): (prompts: readonly string[]) => HostTensor[] {
  return (prompts) => {
    using encoder = PromptEncoder.open(device, files);
    return encoder.rows(prompts).map((rows) => padRows(rows, encoder.length));
  };
}
