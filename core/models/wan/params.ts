import type { Init, ParamSpec } from "../../nn/params.ts";
import type { NetParam, ParamRole } from "../family.ts";
import type { WanConfig } from "./config.ts";

/**
 * Every parameter of the network by its original checkpoint key, in forward order. Initialization: Xavier-like normal
 * for linears, std 0.02 for embeddings, zero for the head and the second time projection, so that training starts from
 * zero output.
 */
export function wanParams(c: WanConfig): NetParam[] {
  const specs: ParamSpec[] = [];
  const { dim: D, ffnDim: F } = c;
  const xavier = (n: number, k: number): Init => ({ kind: "normal", std: Math.sqrt(2 / (n + k)) });
  const linear = (name: string, n: number, k: number, init = xavier(n, k)): void => {
    specs.push({ name: `${name}.weight`, shape: [n, k], init });
    specs.push({ name: `${name}.bias`, shape: [n], init: { kind: "zeros" } });
  };
  const vector = (name: string, n: number, kind: "ones" | "zeros"): void => {
    specs.push({ name, shape: [n], init: { kind } });
  };
  const small: Init = { kind: "normal", std: 0.02 };

  linear("patch_embedding", D, c.inDim * c.patch[0] * c.patch[1] * c.patch[2]);
  linear("text_embedding.0", D, c.textDim, small);
  linear("text_embedding.2", D, D, small);
  linear("time_embedding.0", D, c.freqDim, small);
  linear("time_embedding.2", D, D, small);
  if (c.secondTime) {
    linear("time_embedding_r.0", D, c.freqDim, small);
    linear("time_embedding_r.2", D, D, { kind: "zeros" });
  }
  linear("time_projection.1", 6 * D, D);
  for (let i = 0; i < c.layers; i++) {
    const b = `blocks.${i}`;
    specs.push({ name: `${b}.modulation`, shape: [1, 6, D], init: { kind: "normal", std: 1 / Math.sqrt(D) } });
    for (const attn of ["self_attn", "cross_attn"]) {
      for (const part of ["q", "k", "v", "o"]) linear(`${b}.${attn}.${part}`, D, D);
      vector(`${b}.${attn}.norm_q.weight`, D, "ones");
      vector(`${b}.${attn}.norm_k.weight`, D, "ones");
      if (attn === "self_attn") {
        vector(`${b}.norm3.weight`, D, "ones");
        vector(`${b}.norm3.bias`, D, "zeros");
      }
    }
    linear(`${b}.ffn.0`, F, D);
    linear(`${b}.ffn.2`, D, F);
  }
  specs.push({ name: "head.modulation", shape: [1, 2, D], init: { kind: "normal", std: 1 / Math.sqrt(D) } });
  linear("head.head", c.outDim * c.patch[0] * c.patch[1] * c.patch[2], D, { kind: "zeros" });
  return specs.map((spec) => ({ ...spec, role: wanRole(spec.name), block: wanBlock(spec.name) }));
}

/** Names of the linear layers. */
const LINEARS = [
  "blocks\\.\\d+\\.(?:self_attn|cross_attn)\\.(?:q|k|v|o|k_img|v_img)",
  "blocks\\.\\d+\\.ffn\\.[02]",
  "(?:text|time)_embedding(?:_r)?\\.[02]",
  "time_projection\\.1",
  "head\\.head",
  "img_emb\\.proj\\.[13]",
];
const LINEAR = new RegExp(`^(?:${LINEARS.join("|")})\\.(weight|bias)$`);

/** Role of a parameter, including those of the image branch, which only I2V files have. */
export function wanRole(name: string): ParamRole {
  const kind = LINEAR.exec(name)?.[1];
  if (kind) return kind === "weight" ? "matrix" : "bias";
  if (name.endsWith("modulation")) return "modulation";
  return name.startsWith("patch_embedding.") || name.endsWith("emb_pos") ? "embed" : "norm";
}

/** Block of a parameter; null outside the blocks. */
export function wanBlock(name: string): number | null {
  const found = /^blocks\.(\d+)\./.exec(name);
  return found ? Number(found[1]) : null;
}
