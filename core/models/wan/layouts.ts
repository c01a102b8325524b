/**
 * The three ways in which Wan checkpoints spell their parameters. `original` is the spelling of the Wan repositories and of
 * `wanParams`; `comfyui` is the same behind `model.diffusion_model.`; `diffusers` has names of its own. In the diffusers block the
 * second norm is the affine one before cross-attention, which the original calls norm3; so norm2 and norm3 change places.
 */
export type WanLayout = "original" | "diffusers" | "comfyui";

export interface FoundLayout {
  layout: WanLayout;
  /** What stands before every key of the network; may be empty. */
  prefix: string;
}

/** Which weights of a training run are meant. */
export type WeightKind = "ema" | "student";

export const COMFYUI_PREFIX = "model.diffusion_model.";

/** One parameter that every network of a layout has; both spellings differ. */
const PROBES: [WanLayout, string][] = [
  ["original", "blocks.0.self_attn.q.weight"],
  ["diffusers", "blocks.0.attn1.to_q.weight"],
];

/** Inserted by wrappers (torch.compile, activation checkpointing, FSDP) in the middle of names; they mean nothing. */
const WRAPPERS = /(?:^|(?<=\.))(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\./g;
export const withoutWrappers = (key: string): string => key.replace(WRAPPERS, "");

/** Of several networks in one file, the first of these that is there is meant. */
const PREFERRED: Record<WeightKind, string[]> = {
  ema: ["student.ema/", "net_ema.", "model_ema.", "ema.", "", "net.", COMFYUI_PREFIX],
  student: ["student.master/", "student.weights/", "net.", "model.", "", COMFYUI_PREFIX],
};

/** Every network that a set of keys holds, one entry for each prefix. */
export function networksIn(keys: Iterable<string>): FoundLayout[] {
  const found: FoundLayout[] = [];
  for (const raw of keys) {
    const key = withoutWrappers(raw);
    for (const [layout, probe] of PROBES) {
      if (!key.endsWith(probe)) continue;
      const prefix = key.slice(0, key.length - probe.length);
      if (prefix !== "" && !/[./]$/.test(prefix)) continue;
      found.push({ layout: layout === "original" && prefix === COMFYUI_PREFIX ? "comfyui" : layout, prefix });
    }
  }
  return found;
}

/**
 * Spelling and prefix of the network in a set of keys. Null when there is none, or when there are several and `kind` does not
 * say which one is meant.
 */
export function detectLayout(keys: Iterable<string>, kind: WeightKind = "ema"): FoundLayout | null {
  const found = networksIn(keys);
  if (found.length <= 1) return found[0] ?? null;
  for (const prefix of PREFERRED[kind]) {
    const hit = found.find((f) => f.prefix === prefix);
    if (hit) return hit;
  }
  return null;
}

/** Original spelling and diffusers' spelling of what differs, the part of a name they replace; longer ones first. */
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
    const [ours, theirs] = pair.split(":");
    const parts = [["q", "to_q"], ["k", "to_k"], ["v", "to_v"], ["o", "to_out.0"], ["norm_q", "norm_q"], ["norm_k", "norm_k"], ["k_img", "add_k_proj"], ["v_img", "add_v_proj"], ["norm_k_img", "norm_added_k"]];
    return parts.map(([a, b]): [string, string] => [`${ours}.${a}.`, `${theirs}.${b}.`]);
  }),
];

function respell(name: string, from: 0 | 1): string {
  const block = /^blocks\.\d+\./.exec(name)?.[0] ?? "";
  const rest = name.slice(block.length);
  for (const pair of block === "" ? TOP : BLOCK) {
    const old = pair[from];
    if (rest === old || (old.endsWith(".") && rest.startsWith(old))) return block + pair[1 - from] + rest.slice(old.length);
  }
  return name;
}

/** The original name of a key, or null when the key lies outside the prefix. */
export function toOriginal(layout: WanLayout, prefix: string, key: string): string | null {
  const clean = withoutWrappers(key);
  if (!clean.startsWith(prefix)) return null;
  const name = clean.slice(prefix.length);
  return layout === "diffusers" ? respell(name, 1) : name;
}

/** The key under which a layout stores a parameter of this original name. */
export function fromOriginal(layout: WanLayout, prefix: string, key: string): string {
  return prefix + (layout === "diffusers" ? respell(key, 0) : key);
}
