import type { WanConfig } from "../../core/models/wan/config.ts";

/** Network configuration from a golden file's own metadata. */
export function goldenConfig(json: string): WanConfig {
  const c = JSON.parse(json);
  return {
    dim: c.dim, heads: c.num_heads, layers: c.num_layers, ffnDim: c.ffn_dim, inDim: c.in_dim, outDim: c.out_dim,
    patch: c.patch_size, freqDim: c.freq_dim, textDim: c.text_dim, textLen: c.text_len, eps: 1e-6, timeScale: 1000,
    secondTime: false,
  };
}
