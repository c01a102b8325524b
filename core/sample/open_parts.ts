import type { DType } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { openCheckpoint, type Stored } from "../io/checkpoint.ts";
import { WAN_VAE, type WanVaeConfig } from "../models/wan_vae/config.ts";
import { vaeKeyToOriginal } from "../models/wan_vae/keys.ts";
import { WanVae } from "../models/wan_vae/model.ts";
import type { Device } from "../tensor.ts";
import { PromptEncoder } from "../text/encoder.ts";
import { loadParams } from "../weights/load.ts";
import type { TextStage, VideoVae } from "./parts.ts";

/** The umT5 encoder; its weights are read for prompts that the cache does not hold, and freed with it. */
export function openText(device: Device, files: { weights: string; tokenizer: string; cache: string | null }, length: number): TextStage {
  const encoder = PromptEncoder.open(device, { ...files, length });
  return {
    encode: (prompts) => encoder.encode(prompts),
    [Symbol.dispose]() {
      encoder[Symbol.dispose]();
      device.lib.memoryTrim();
    },
  };
}

/** How far a tile reaches into the next one: a quarter of its side hides the seams of the receptive field. */
const overlapOf = (size: number): number => Math.max(2, Math.floor(size / 4));

/** The Wan2.1 VAE of a file in the original or diffusers' spelling. Throws: E_FORMAT naming keys that do not fit. */
export function openVae(device: Device, { weights, tile }: { weights: string; tile: number }, dtype: DType): VideoVae {
  const { tensors, path } = openCheckpoint(weights);
  const named = new Map<string, Stored>([...tensors].map(([key, t]) => [vaeKeyToOriginal(key, WAN_VAE) ?? key, t]));
  const vae = WanVae.create(device, configOf(named, path), { dtype });
  const tiles = tile === 0 ? null : { size: tile, overlap: overlapOf(tile) };
  try {
    loadParams(vae.params, named, path);
  } catch (error) {
    vae.params.flat.free();
    throw error;
  }
  return {
    encode: (video) => vae.encode(video, { tile: tiles }),
    decode: (latent, sink) => vae.decode(latent, sink, { tile: tiles }),
    [Symbol.dispose]() {
      vae.params.flat.free();
      device.lib.memoryTrim();
    },
  };
}

/** The published network; the width is the file's. */
function configOf(tensors: ReadonlyMap<string, Stored>, path: string): WanVaeConfig {
  const first = tensors.get("encoder.conv1.weight");
  if (!first) throw new RcmError("E_FORMAT", `${path} holds no Wan2.1 VAE`, { op: "weights", want: "encoder.conv1.weight", got: [...tensors.keys()].slice(0, 3) });
  return { ...WAN_VAE, dim: first.shape[0] };
}
