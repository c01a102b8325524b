import type { DType } from "../../core/dtype.ts";
import { WAN_VAE, type WanVaeConfig } from "../../core/models/wan_vae/config.ts";
import type { VaePassOptions } from "../../core/models/vae.ts";
import { WanVae } from "../../core/models/wan_vae/model.ts";
import type { Device, Tensor } from "../../core/tensor.ts";
import { golden } from "./golden.ts";

interface RawConfig {
  dim: number;
  z_dim: number;
  dim_mult: number[];
  num_res_blocks: number;
  temperal_downsample: boolean[];
}

export const vaeGolden = () => golden("wan_vae.safetensors");

export function vaeConfig(text: string): WanVaeConfig {
  const c = JSON.parse(text) as RawConfig;
  const { mean, std } = WAN_VAE;
  return {
    dim: c.dim, zDim: c.z_dim, mult: c.dim_mult, resBlocks: c.num_res_blocks, temporal: c.temperal_downsample, mean,
    std,
  };
}

export function goldenVae(device: Device, dtype: DType): WanVae {
  const g = vaeGolden();
  const vae = WanVae.create(device, vaeConfig(g.metadata.config), { dtype });
  vae.load(g.under("params."), "golden");
  return vae;
}

/** All frames of a decode on the host, in the layout [B, 3, T, Y, X]. */
export function decodeAll(vae: WanVae, latent: Tensor, options: VaePassOptions = {}): Float64Array {
  const parts: { first: number; shape: readonly number[]; values: Float64Array }[] = [];
  vae.decode(latent, (frames, first) => parts.push({ first, shape: frames.shape, values: frames.values() }), options);
  const T = parts.reduce((n, p) => n + p.shape[2], 0);
  const [B, C, , Y, X] = parts[0].shape;
  const out = new Float64Array(B * C * T * Y * X);
  for (const { first, shape, values } of parts) {
    const size = shape[2] * Y * X;
    for (let i = 0; i < B * C; i++) out.set(values.subarray(i * size, (i + 1) * size), (i * T + first) * Y * X);
  }
  return out;
}
