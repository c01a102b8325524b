import { COMFYUI_PREFIX, type Layout } from "../layout.ts";

/** Pairs of original and diffusers names, for the part of a name that differs; longer ones first. */
const TOP: [string, string][] = [
  ["time_embedding.0.", "condition_embedder.time_embedder.linear_1."],
  ["time_embedding.2.", "condition_embedder.time_embedder.linear_2."],
  ["text_embedding.0.", "condition_embedder.text_embedder.linear_1."],
  ["text_embedding.2.", "condition_embedder.text_embedder.linear_2."],
  ["time_projection.1.", "condition_embedder.time_proj."],
  ["img_emb.proj.0.", "condition_embedder.image_embedder.norm1."],
  ["img_emb.proj.1.", "condition_embedder.image_embedder.ff.net.0.proj."],
  ["img_emb.proj.3.", "condition_embedder.image_embedder.ff.net.2."],
  ["img_emb.proj.4.", "condition_embedder.image_embedder.norm2."],
  ["img_emb.emb_pos", "condition_embedder.image_embedder.pos_embed"],
  ["head.modulation", "scale_shift_table"],
  ["head.head.", "proj_out."],
];
const BLOCK: [string, string][] = [
  ["modulation", "scale_shift_table"],
  ["norm3.", "norm2."],
  ["norm2.", "norm3."],
  ["ffn.0.", "ffn.net.0.proj."],
  ["ffn.2.", "ffn.net.2."],
  ...(["self_attn:attn1", "cross_attn:attn2"] as const).flatMap((pair): [string, string][] => {
    const [original, diffusers] = pair.split(":");
    const parts = [
      ["q", "to_q"],
      ["k", "to_k"],
      ["v", "to_v"],
      ["o", "to_out.0"],
      ["norm_q", "norm_q"],
      ["norm_k", "norm_k"],
      ["k_img", "add_k_proj"],
      ["v_img", "add_v_proj"],
      ["norm_k_img", "norm_added_k"],
    ];
    return parts.map(([a, b]): [string, string] => [`${original}.${a}.`, `${diffusers}.${b}.`]);
  }),
];

function respell(name: string, from: 0 | 1): string {
  const block = /^blocks\.\d+\./.exec(name)?.[0] ?? "";
  const rest = name.slice(block.length);
  for (const pair of block === "" ? TOP : BLOCK) {
    const old = pair[from];
    if (rest === old || (old.endsWith(".") && rest.startsWith(old))) {
      return block + pair[1 - from] + rest.slice(old.length);
    }
  }
  return name;
}

const same = (name: string): string => name;
const ORIGINAL = { probe: "blocks.0.self_attn.q.weight", toCanonical: same, fromCanonical: same };

/**
 * The three naming schemes of Wan checkpoints. `original` are the names of the Wan repositories and of `wanParams`,
 * `comfyui` the same with a prefix, `diffusers` different ones. In a diffusers block the second norm is the affine one
 * before cross-attention, which the original calls norm3; so norm2 and norm3 are swapped.
 */
export const WAN_LAYOUTS: readonly Layout[] = [
  { name: "original", prefix: "", ...ORIGINAL },
  { name: "comfyui", prefix: COMFYUI_PREFIX, ...ORIGINAL },
  {
    name: "diffusers",
    prefix: "",
    probe: "blocks.0.attn1.to_q.weight",
    toCanonical: (key) => respell(key, 1),
    fromCanonical: (name) => respell(name, 0),
  },
];
