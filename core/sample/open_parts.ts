import { RcmError } from "../error.ts";
import type { DType } from "../dtype.ts";
import type { Device } from "../tensor.ts";
import type { TextStage, VideoVae } from "./parts.ts";

const absent = (what: string, way: string): RcmError => new RcmError("E_ARG", `this build has no ${what}; ${way}`, { op: "sample" });

/** Waits for the text encoder's branch. */
export function openText(_device: Device, _files: { weights: string; tokenizer: string; cache: string | null }): TextStage {
  throw absent("text encoder", "--embeds gives embeddings");
}

/** Waits for the VAE's branch. */
export function openVae(_device: Device, _vae: { weights: string; tile: number }, _dtype: DType): VideoVae {
  throw absent("VAE", "--latents-only goes without");
}
