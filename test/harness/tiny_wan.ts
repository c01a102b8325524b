import type { DType } from "../../core/dtype.ts";
import type { Network } from "../../core/networks/network.ts";
import { wanNetwork } from "./wan_net.ts";
import type { WanConfig } from "../../core/models/wan/config.ts";
import type { ParamSet } from "../../core/nn/params.ts";
import type { Device } from "../../core/tensor.ts";

/** The Wan network with small numbers, latents and text widths as they are in earnest. */
export const TINY_WAN: WanConfig = {
  dim: 48, heads: 2, layers: 3, ffnDim: 64, inDim: 16, outDim: 16, patch: [1, 2, 2], freqDim: 32, textDim: 24,
  textLen: 5, eps: 1e-6, timeScale: 1000, secondTime: false,
};

/** Random weights, none of them zero, the same for a parameter's name whatever set it is in. */
export function randomize(params: ParamSet, seed = 1): void {
  const { device } = params;
  for (const { name, shape } of params.specs) {
    using _scope = device.scope();
    const t = params.tensor(name);
    const stream = [...name].reduce((h, c) => (h * 31 + c.charCodeAt(0)) % 1_000_003, 7);
    t.fill(name.includes("norm") && name.endsWith("weight") ? 1 : 0);
    t.axpy(device.randn(shape, t.dtype, seed, stream), shape.length > 1 ? 1 / Math.sqrt(shape[shape.length - 1]) : 0.1);
  }
}

export function tinyWan(device: Device, config: WanConfig, dtype: DType, seed = 1): Network {
  const model = wanNetwork(device, config, { dtype, residual: "f32", checkpoint: "none", trainable: false });
  randomize(model.params, seed);
  return model;
}
