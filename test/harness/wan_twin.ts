import { writeFileSync } from "node:fs";
import { wanNetwork } from "./wan_net.ts";
import { join } from "node:path";
import { hostTensor, type HostTensor } from "../../core/dtype.ts";
import { writeSafetensors } from "../../core/io/safetensors.ts";
import { writeTorch } from "../../core/io/torch.ts";
import { WAN_PRESETS, type WanConfig } from "../../core/models/wan/config.ts";
import { WAN_VAE } from "../../core/models/wan_vae/config.ts";
import { WanVae } from "../../core/models/wan_vae/model.ts";
import { Rng } from "../../core/rng.ts";
import { Device } from "../../core/tensor.ts";

/** The Wan2.1 network at toy size: the public file formats, keys, text and latent channels; one block of one head. */
export const TINY_WAN: WanConfig = { ...WAN_PRESETS["wan2.1-1.3b"], dim: 128, heads: 1, layers: 1, ffnDim: 96 };
/** Stored latents of the twins, and the overrides that turn a Wan2.1 recipe into its twin. */
export const TINY_SHAPE = [16, 3, 4, 6];
export const TINY_SETS = [
  "model.dim=128", "model.heads=1", "model.layers=1", "model.ffn_dim=96", `data.shape=[${TINY_SHAPE}]`,
  "train.steps=8", "train.checkpoint_every=4", "train.log_every=1", "optimizer.warmup_steps=2",
];

/**
 * Random weights as a .pth (or .safetensors) of the public layout: original keys, the patch embedding as a Conv3d
 * kernel.
 */
export function writeTinyTeacher(path: string, seed: number, dtype: "bf16" | "f32" = "bf16"): void {
  using device = Device.open({ device: "cpu", threads: 1 });
  const { params } = wanNetwork(device, TINY_WAN, { dtype, residual: "f32", checkpoint: "none", trainable: false });
  params.init(seed);
  // A fresh head is zero; a teacher's is not.
  const head = params.tensor("head.head.weight");
  head.axpy(device.randn(head.shape, head.dtype, seed, 99), 0.1);
  const conv = (name: string, t: HostTensor): HostTensor =>
    name === "patch_embedding.weight" ? { ...t, shape: [TINY_WAN.dim, TINY_WAN.inDim, ...TINY_WAN.patch] } : t;
  const tensors = [...params.entries()].map(([name, t]): [string, HostTensor] => [name, conv(name, t)]);
  if (path.endsWith(".safetensors")) writeSafetensors(path, tensors);
  else writeFileSync(path, writeTorch(tensors));
}

/** A text embedding as the public files have it: bf16 [length, 4096], rows of the text only. */
export function textEmbedding(seed: number, length: number): HostTensor {
  const rng = new Rng(seed, 5);
  return hostTensor(
    "bf16",
    [length, TINY_WAN.textDim],
    Float64Array.from({ length: length * TINY_WAN.textDim }, () => rng.normal() * 0.2),
  );
}

/** Prompts, their embeddings and a negative embedding in a folder; returns the paths. */
export function writeTinyTexts(folder: string, count: number): { prompts: string; embeds: string; negative: string } {
  const paths = { prompts: join(folder, "prompts.txt"), embeds: folder, negative: join(folder, "negative.pt") };
  writeFileSync(paths.prompts, Array.from({ length: count }, (_, i) => `prompt number ${i}\n`).join(""));
  for (let i = 0; i < count; i++)
    writeFileSync(join(folder, `${String(i).padStart(9, "0")}.embed.pt`), writeTorch(textEmbedding(i, 4 + i)));
  writeFileSync(paths.negative, writeTorch(textEmbedding(1000, 7)));
  return paths;
}

/** A random VAE of the published structure with few channels, as a .pth. */
export function writeTinyVae(path: string): void {
  using device = Device.open({ device: "cpu", threads: 1 });
  const { params } = WanVae.create(device, { ...WAN_VAE, dim: 8 }, { dtype: "bf16" });
  params.init(3);
  writeFileSync(path, writeTorch(params.entries()));
}
