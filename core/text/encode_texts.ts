import { hostTensor, hostValues, type HostTensor } from "../dtype.ts";
import type { Device } from "../tensor.ts";
import { PromptEncoder } from "./encoder.ts";

/** Files of a text encoder. */
export interface EncoderFiles {
  weights: string;
  tokenizer: string;
  /** Folder that keeps embeddings; null: none. */
  cache: string | null;
}

/** Encodes prompts and frees the encoder. Shapes: [length, D] bf16 each, zeros past each prompt. Throws: E_IO, E_FORMAT, E_NONFINITE. */
export async function encodeTexts(device: Device, files: EncoderFiles, prompts: readonly string[], length: number, dtype: "bf16" | "f32" = "bf16"): Promise<HostTensor[]> {
  using encoder = await PromptEncoder.open(device, { ...files, length, dtype });
  const out: HostTensor[] = [];
  for (const prompt of prompts) {
    using _scope = device.scope();
    const host = (await encoder.encode([prompt])).toHost();
    const shape = host.shape.slice(1);
    out.push(host.dtype === "bf16" ? { ...host, shape } : hostTensor("bf16", shape, hostValues(host)));
  }
  encoder.release();
  device.trim();
  return out;
}
