import type { ParamSpec } from "../../nn/params.ts";
import type { Umt5Config } from "./config.ts";

/** Every parameter under its name in Wan's weight file, in forward order, initialised as in T5 v1.1. */
export function umt5Params(c: Umt5Config): ParamSpec[] {
  const specs: ParamSpec[] = [];
  const normal = (name: string, shape: number[], std: number): void =>
    void specs.push({ name, shape, init: { kind: "normal", std } });
  const ones = (name: string): void => void specs.push({ name, shape: [c.dim], init: { kind: "ones" } });

  normal("token_embedding.weight", [c.vocab, c.dim], 1);
  for (let i = 0; i < c.layers; i++) {
    const b = `blocks.${i}`;
    ones(`${b}.norm1.weight`);
    normal(`${b}.attn.q.weight`, [c.dimAttn, c.dim], (c.dim * (c.dimAttn / c.heads)) ** -0.5);
    normal(`${b}.attn.k.weight`, [c.dimAttn, c.dim], c.dim ** -0.5);
    normal(`${b}.attn.v.weight`, [c.dimAttn, c.dim], c.dim ** -0.5);
    normal(`${b}.attn.o.weight`, [c.dim, c.dimAttn], c.dimAttn ** -0.5);
    normal(`${b}.pos_embedding.embedding.weight`, [c.buckets, c.heads], (2 * c.buckets * c.heads) ** -0.5);
    ones(`${b}.norm2.weight`);
    normal(`${b}.ffn.gate.0.weight`, [c.ffnDim, c.dim], c.dim ** -0.5);
    normal(`${b}.ffn.fc1.weight`, [c.ffnDim, c.dim], c.dim ** -0.5);
    normal(`${b}.ffn.fc2.weight`, [c.dim, c.ffnDim], c.ffnDim ** -0.5);
  }
  ones("norm.weight");
  return specs;
}

/** Naming schemes of the same weights: Wan's file, or transformers (which ComfyUI uses too). */
export const UMT5_LAYOUTS = ["wan", "transformers"] as const;
export type Umt5Layout = (typeof UMT5_LAYOUTS)[number];

const LAYER: readonly (readonly [wan: string, transformers: string])[] = [
  ["norm1.weight", "layer.0.layer_norm.weight"],
  ["attn.q.weight", "layer.0.SelfAttention.q.weight"],
  ["attn.k.weight", "layer.0.SelfAttention.k.weight"],
  ["attn.v.weight", "layer.0.SelfAttention.v.weight"],
  ["attn.o.weight", "layer.0.SelfAttention.o.weight"],
  ["pos_embedding.embedding.weight", "layer.0.SelfAttention.relative_attention_bias.weight"],
  ["norm2.weight", "layer.1.layer_norm.weight"],
  ["ffn.gate.0.weight", "layer.1.DenseReluDense.wi_0.weight"],
  ["ffn.fc1.weight", "layer.1.DenseReluDense.wi_1.weight"],
  ["ffn.fc2.weight", "layer.1.DenseReluDense.wo.weight"],
];
const ROOT: readonly (readonly [wan: string, transformers: string])[] = [
  ["token_embedding.weight", "shared.weight"],
  ["norm.weight", "encoder.final_layer_norm.weight"],
];

/** Keys that hold no parameter: an alias of the token embedding, and metadata of ComfyUI. */
const IGNORED = new Set(["encoder.embed_tokens.weight", "spiece_model", "scaled_fp8"]);

/** The name of a parameter in a layout. */
export function umt5KeyIn(layout: Umt5Layout, name: string): string {
  if (layout === "wan") return name;
  const root = ROOT.find(([wan]) => wan === name);
  if (root) return root[1];
  const m = /^blocks\.(\d+)\.(.+)$/.exec(name);
  const part = m && LAYER.find(([wan]) => wan === m[2]);
  return m && part ? `encoder.block.${m[1]}.${part[1]}` : name;
}

/** The parameter that a key of a layout holds; null if the encoder has no such parameter. */
export function umt5NameOf(layout: Umt5Layout, key: string): string | null {
  if (layout === "wan") {
    return ROOT.some(([wan]) => wan === key) || LAYER.some(([wan]) => key.replace(/^blocks\.\d+\./, "") === wan)
      ? key
      : null;
  }
  const root = ROOT.find(([, hf]) => hf === key);
  if (root) return root[0];
  const m = /^encoder\.block\.(\d+)\.(.+)$/.exec(key);
  const part = m && LAYER.find(([, hf]) => hf === m[2]);
  return m && part ? `blocks.${m[1]}.${part[0]}` : null;
}

export interface Umt5Source {
  layout: Umt5Layout;
  /** Prefix of every key. */
  prefix: string;
}

/** Detects the layout from the token embedding and the first block; null if it is no umT5 encoder. */
export function detectUmt5Layout(keys: Iterable<string>): Umt5Source | null {
  const all = new Set(keys);
  for (const layout of UMT5_LAYOUTS) {
    const [root, first] = ["token_embedding.weight", "blocks.0.attn.q.weight"].map((n) => umt5KeyIn(layout, n));
    for (const key of all) {
      if (!key.endsWith(first)) continue;
      const prefix = key.slice(0, key.length - first.length);
      if ((prefix === "" || prefix.endsWith(".")) && all.has(prefix + root)) return { layout, prefix };
    }
  }
  return null;
}

/** Maps each parameter to the key that holds it; other keys are in `unexpected`. */
export function umt5Keys(
  source: Umt5Source,
  keys: Iterable<string>,
): { names: Map<string, string>; unexpected: string[] } {
  const names = new Map<string, string>();
  const unexpected: string[] = [];
  for (const key of keys) {
    const bare = key.startsWith(source.prefix) ? key.slice(source.prefix.length) : null;
    const name = bare === null ? null : umt5NameOf(source.layout, bare);
    if (name !== null) names.set(name, key);
    else if (bare === null || !IGNORED.has(bare)) unexpected.push(key);
  }
  return { names, unexpected };
}
