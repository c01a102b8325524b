import { numel } from "../../dtype.ts";
import { RcmError } from "../../error.ts";
import type { Family, StoredShapes } from "../family.ts";
import { PRESETS, WAN_PRESETS, WAN_VIDEO, type WanConfig } from "./config.ts";
import { WAN_LAYOUTS } from "./layouts.ts";
import { WanNet } from "./net.ts";
import { wanBlock, wanParams, wanRole } from "./params.ts";

/** Text embeddings up to this width come from the byte-level encoder of small networks. */
const BYTE_WIDTH = 64;

/** Wan2.1 and the small networks of its structure. */
export const wan: Family<WanConfig> = {
  name: "wan",
  title: "Wan",
  presets: PRESETS,
  video: WAN_VIDEO,
  resize: (c, { channels, text, ...sizes }) => ({
    ...c,
    ...defined(sizes),
    ...(channels !== undefined && { inDim: channels, outDim: channels }),
    ...(text && { textDim: text.width, textLen: text.length }),
  }),
  latent: (c) => ({
    channels: c.outDim,
    inputChannels: c.inDim,
    ...(c.outDim === 16 ? { strides: [4, 8, 8] as const, vae: "wan" } : { strides: [1, 1, 1] as const, vae: null }),
  }),
  text: (c) => ({ encoder: c.textDim <= BYTE_WIDTH ? "bytes" : "umt5", width: c.textDim, length: c.textLen }),
  ffnDim: (c) => c.ffnDim,
  params: wanParams,
  roleOf: wanRole,
  blockOf: wanBlock,
  // A newly initialized second time embedding adds zero, so a MeanFlow student starts as its teacher.
  optional: (name) => name.startsWith("time_embedding_r."),
  net: (config, params, options) => new WanNet(config, params, options),
  layouts: WAN_LAYOUTS,
  configOf,
  note: (config) => ({ wan_config: JSON.stringify(config) }),
  noted: ({ wan_config: text }) => (text === undefined ? null : parseConfig(text)),
  diffusers,
  storedShape(name, shape, config, form) {
    if (name !== "patch_embedding.weight") return shape;
    if (form === "linear") return shape.length > 2 ? [shape[0], numel(shape) / shape[0]] : shape;
    if (shape.length !== 2 || !config || numel(shape) !== shape[0] * config.inDim * numel(config.patch)) return shape;
    return [shape[0], config.inDim, ...config.patch];
  },
};

const defined = <T extends object>(o: T): Partial<T> =>
  Object.fromEntries(Object.entries(o).filter(([, v]) => v !== undefined)) as Partial<T>;

/** Width of a head in every published Wan network. */
const HEAD_WIDTH = 128;
const PATCH = [1, 2, 2] as const;

/** Sizes from shapes; heads and the patch of a flattened embedding from `stated`, else from the matching preset. */
function configOf(shapes: StoredShapes, stated: Readonly<Record<string, unknown>>, path: string): WanConfig {
  const bad = (name: string, got?: unknown): RcmError =>
    new RcmError("E_FORMAT", `${path}: ${name} does not say how large the network is`, { op: "weights", got });
  const shape = (name: string, ...axes: number[]): readonly number[] => {
    const found = shapes.get(name)?.shape;
    if (!found || !axes.includes(found.length) || found.some((d) => d < 1)) throw bad(name, found ?? "nothing");
    return found;
  };
  const [dim] = shape("blocks.0.self_attn.q.weight", 2);
  const [ffnDim] = shape("blocks.0.ffn.0.weight", 2);
  let layers = 0;
  while (shapes.has(`blocks.${layers}.self_attn.q.weight`)) layers++;
  const isPreset = (p: WanConfig): boolean => p.dim === dim && p.layers === layers && p.ffnDim === ffnDim;
  const preset: WanConfig | undefined = Object.values(WAN_PRESETS).find(isPreset);
  const hints = { ...preset, ...statedSizes(stated) };
  const embed = shape("patch_embedding.weight", 2, 5);
  const patch: readonly [number, number, number] = embed.length === 5
    ? [embed[2], embed[3], embed[4]]
    : (hints.patch ?? PATCH);
  const volume = numel(patch);
  const [out] = shape("head.head.weight", 2);
  const inDim = numel(embed.slice(1)) / volume;
  const heads = hints.heads ?? dim / HEAD_WIDTH;
  if (!Number.isSafeInteger(inDim)) throw bad("patch_embedding.weight", embed);
  if (!Number.isSafeInteger(out / volume)) throw bad("head.head.weight", out);
  if (!Number.isSafeInteger(heads) || heads < 1 || dim % heads !== 0) {
    throw bad("blocks.0.self_attn.q.weight", `width ${dim}, ${heads} heads`);
  }
  return {
    dim,
    heads,
    layers,
    patch,
    inDim,
    ffnDim,
    outDim: out / volume,
    freqDim: shape("time_embedding.0.weight", 2)[1],
    textDim: shape("text_embedding.0.weight", 2)[1],
    textLen: hints.textLen ?? 512,
    eps: 1e-6,
    timeScale: 1000,
    secondTime: shapes.has("time_embedding_r.0.weight"),
  };
}

const isCount = (v: unknown): v is number => Number.isSafeInteger(v) && (v as number) > 0;
const count = (v: unknown): number | undefined => (isCount(v) ? v : undefined);

type StatedSizes = Partial<Pick<WanConfig, "heads" | "patch" | "textLen">>;

/** Sizes in a config.json of diffusers or Wan that shapes do not determine. */
function statedSizes(c: Readonly<Record<string, unknown>>): StatedSizes {
  const isPatch = Array.isArray(c.patch_size) && c.patch_size.length === 3 && c.patch_size.every(isCount);
  const patch = isPatch ? (c.patch_size as [number, number, number]) : undefined;
  const [heads, textLen] = [count(c.num_attention_heads) ?? count(c.num_heads), count(c.text_len)];
  return { ...(heads && { heads }), ...(patch && { patch }), ...(textLen && { textLen }) };
}

/** A configuration from the metadata of an exported file; null when it is not valid. */
function parseConfig(text: string): WanConfig | null {
  let c: unknown;
  try {
    c = JSON.parse(text);
  } catch {
    return null;
  }
  if (typeof c !== "object" || c === null) return null;
  const v = c as Record<string, unknown>;
  const patch = Array.isArray(v.patch) && v.patch.length === 3 ? v.patch : [0];
  const sizes = [v.dim, v.heads, v.layers, v.ffnDim, v.inDim, v.outDim, v.freqDim, v.textDim, v.textLen];
  const valid = [...sizes, v.timeScale, ...patch].every(isCount);
  return valid && typeof v.eps === "number" && typeof v.secondTime === "boolean" ? (c as WanConfig) : null;
}

/** Fields of diffusers' WanTransformer3DModel. */
function diffusers(c: WanConfig, shapes: StoredShapes): Record<string, unknown> {
  if (c.secondTime) {
    const message = "a MeanFlow student has a second time embedding, which diffusers does not know";
    throw new RcmError("E_ARG", message, { op: "export", want: "--format original" });
  }
  const imageDim = shapes.get("img_emb.proj.0.weight")?.shape[0] ?? null;
  return {
    _class_name: "WanTransformer3DModel",
    _diffusers_version: "0.33.0",
    added_kv_proj_dim: imageDim === null ? null : c.dim,
    attention_head_dim: c.dim / c.heads,
    cross_attn_norm: true,
    eps: c.eps,
    ffn_dim: c.ffnDim,
    freq_dim: c.freqDim,
    image_dim: imageDim,
    in_channels: c.inDim,
    num_attention_heads: c.heads,
    num_layers: c.layers,
    out_channels: c.outDim,
    patch_size: [...c.patch],
    qk_norm: "rms_norm_across_heads",
    rope_max_seq_len: 1024,
    text_dim: c.textDim,
  };
}
