import { fromOriginal } from "../models/wan/layouts.ts";

/** What a parameter's difference becomes in a LoRA file. */
export type LoraKind = "matrix" | "bias" | "other";

export const LORA_LAYOUTS = ["comfyui", "diffusers"] as const;
/**
 * `comfyui`: `diffusion_model.<layer>.lora_down.weight`, `lora_up.weight`, `alpha`, `diff_b`; everything else as `diff`.
 * `diffusers`: `transformer.<layer>.lora_A.weight`, `lora_B.weight`, `lora_B.bias`; peft has no place for norms and modulation.
 */
export type LoraLayout = (typeof LORA_LAYOUTS)[number];

const MATRICES = /^(?:blocks\.\d+\.(?:(?:self_attn|cross_attn)\.(?:q|k|v|o|k_img|v_img)|ffn\.[02])|text_embedding\.[02]|time_embedding\.[02]|time_projection\.1|head\.head|img_emb\.proj\.[13])\.(weight|bias)$/;

export function kindOf(name: string): LoraKind {
  const kind = MATRICES.exec(name)?.[1];
  return kind === "weight" ? "matrix" : kind === "bias" ? "bias" : "other";
}

const layerOf = (name: string): string => name.replace(/\.(?:weight|bias)$/, "");

/** Keys of one layer's factors, [down or A, up or B, alpha or null]. */
export function factorKeys(layout: LoraLayout, name: string): { down: string; up: string; alpha: string | null } {
  if (layout === "diffusers") {
    const layer = `transformer.${layerOf(fromOriginal("diffusers", "", name))}`;
    return { down: `${layer}.lora_A.weight`, up: `${layer}.lora_B.weight`, alpha: null };
  }
  const layer = `diffusion_model.${layerOf(name)}`;
  // Alpha equals the rank, which is also what a file without it means. diffusers' reader of this layout knows it inside blocks only.
  return { down: `${layer}.lora_down.weight`, up: `${layer}.lora_up.weight`, alpha: name.startsWith("blocks.") ? `${layer}.alpha` : null };
}

/** Key of a difference that is stored as it is; null where the layout has no place for it. */
export function differenceKey(layout: LoraLayout, name: string): string | null {
  const bias = name.endsWith(".bias");
  if (layout === "diffusers") return bias && kindOf(name) === "bias" ? `transformer.${layerOf(fromOriginal("diffusers", "", name))}.lora_B.bias` : null;
  return `diffusion_model.${layerOf(name)}.${bias ? "diff_b" : "diff"}`;
}
