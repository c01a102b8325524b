import { RcmError } from "../error.ts";
import type { Family } from "../models/family.ts";

/** How a LoRA file stores a parameter's difference. */
export type LoraKind = "matrix" | "bias" | "other";

export const LORA_LAYOUTS = ["comfyui", "diffusers"] as const;
/**
 * `comfyui`: `diffusion_model.<layer>.lora_down.weight`, `lora_up.weight`, `alpha`, `diff_b`; everything else as
 * `diff`.
 * `diffusers`: `transformer.<layer>.lora_A.weight`, `lora_B.weight`, `lora_B.bias`; peft has no keys for norms and
 * modulation.
 */
export type LoraLayout = (typeof LORA_LAYOUTS)[number];

export function kindOf(family: Family, name: string): LoraKind {
  const role = family.roleOf(name);
  return role === "matrix" || role === "bias" ? role : "other";
}

const layerOf = (name: string): string => name.replace(/\.(?:weight|bias)$/, "");

/** The layer of a parameter as peft names it in a diffusers model. */
function peftLayer(family: Family, name: string): string {
  const layout = family.layouts.find((l) => l.name === "diffusers");
  if (!layout) throw new RcmError("E_ARG", `${family.title} networks have no diffusers format`, { op: "export" });
  return `transformer.${layerOf(layout.fromCanonical(name))}`;
}

/** Keys of one layer's factors, [down or A, up or B, alpha or null]. */
export function factorKeys(
  family: Family,
  layout: LoraLayout,
  name: string,
): { down: string; up: string; alpha: string | null } {
  if (layout === "diffusers") {
    const layer = peftLayer(family, name);
    return { down: `${layer}.lora_A.weight`, up: `${layer}.lora_B.weight`, alpha: null };
  }
  const layer = `diffusion_model.${layerOf(name)}`;
  // Alpha equals the rank, the default of a file without alpha; diffusers reads alpha of this layout inside blocks
  // only.
  return {
    down: `${layer}.lora_down.weight`,
    up: `${layer}.lora_up.weight`,
    alpha: family.blockOf(name) !== null ? `${layer}.alpha` : null,
  };
}

/** Key of a difference stored without factors; null where the layout has none. */
export function differenceKey(family: Family, layout: LoraLayout, name: string): string | null {
  const bias = name.endsWith(".bias");
  if (layout === "diffusers")
    return bias && kindOf(family, name) === "bias" ? `${peftLayer(family, name)}.lora_B.bias` : null;
  return `diffusion_model.${layerOf(name)}.${bias ? "diff_b" : "diff"}`;
}
