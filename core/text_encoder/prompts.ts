import type { HostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import type { Device } from "../tensor.ts";

/** Files of a text encoder. */
export interface EncoderFiles {
  weights: string;
  tokenizer: string;
  /** Folder that keeps embeddings; null: none. */
  cache: string | null;
}

export function promptEmbedder(_device: Device, files: EncoderFiles): (prompts: readonly string[]) => HostTensor[] {
  throw new RcmError("E_ARG", `no encoder ${files.weights}`, { op: "text" });
}
