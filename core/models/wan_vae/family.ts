import type { VaeFamily } from "../vae.ts";
import { WAN_VAE, type WanVaeConfig } from "./config.ts";
import { vaeKeyToOriginal, wanVaeParams } from "./keys.ts";
import { WanVae } from "./model.ts";

/** The autoencoder of Wan2.1, which Cosmos-Predict2 and others use too. */
export const wanVae: VaeFamily<WanVaeConfig> = {
  title: "Wan VAE",
  presets: { "wan2.1-vae": WAN_VAE, "wan-vae-small": { ...WAN_VAE, dim: 8, resBlocks: 1 } },
  params: wanVaeParams,
  canonicalName: (key) => vaeKeyToOriginal(key, WAN_VAE),
  recognises: (keys) =>
    [...keys].some((k) => /^(encoder\.conv1|encoder\.conv_in|decoder\.conv1|decoder\.conv_in)\./.test(k)),
  configOf(shapes) {
    const [first, latent] = [shapes.get("encoder.conv1.weight")?.shape, shapes.get("conv2.weight")?.shape];
    return first?.length === 5 && latent && latent[0] === WAN_VAE.zDim ? { ...WAN_VAE, dim: first[0] } : null;
  },
  wanted: `encoder.conv1.weight [dim, 3, 3, 3, 3] and conv2.weight of ${WAN_VAE.zDim} channels`,
  describe: (config) => `width ${config.dim}`,
  create: (device, config, dtype) => WanVae.create(device, config, { dtype }),
};
