import { RcmError } from "../error.ts";
import { PromptEncoder } from "../text_encoder/encoder.ts";
import type { DType } from "../dtype.ts";
import type { Device } from "../tensor.ts";
import type { TextStage, VideoVae } from "./parts.ts";

const absent = (what: string, way: string): RcmError => new RcmError("E_ARG", `this build has no ${what}; ${way}`, { op: "sample" });

/** The umT5 encoder; its weights are read for prompts that the cache does not hold, and freed with it. */
export const openText = async (device: Device, files: { weights: string; tokenizer: string; cache: string | null }, length: number): Promise<TextStage> => {
  const encoder = await PromptEncoder.open(device, { ...files, length });
  return {
    encode: (prompts) => encoder.encode(prompts),
    [Symbol.dispose]() {
      encoder[Symbol.dispose]();
      device.lib.memoryTrim();
    },
  };
};

/** Waits for the VAE's branch. */
export function openVae(_device: Device, _vae: { weights: string; tile: number }, _dtype: DType): VideoVae {
  throw absent("VAE", "--latents-only goes without");
}
