import { statSync } from "node:fs";
import { basename, extname, join } from "node:path";
import { RcmError } from "../error.ts";
import { writeFileAtomic } from "../io/atomic.ts";
import { writeDcp } from "../io/dcp_write.ts";
import { AtomicFile } from "../io/out_file.ts";
import { AtomicFolder } from "../io/out_folder.ts";
import { streamSafetensors } from "../io/safetensors.ts";
import { streamTorch } from "../io/torch.ts";
import type { WanConfig } from "../models/wan/config.ts";
import { COMFYUI_PREFIX, type WanLayout } from "../models/wan/layouts.ts";
import type { OutTensor } from "./convert.ts";

export const FORMATS = ["original", "diffusers", "comfyui", "dcp"] as const;
export type ExportFormat = (typeof FORMATS)[number];

/** How a format spells keys, what it puts before them, and whether its patch embedding is a Conv3d weight. */
export const FORMAT_KEYS: Record<ExportFormat, { layout: WanLayout; prefix: string; patch: PatchForm }> = {
  original: { layout: "original", prefix: "", patch: "conv3d" },
  diffusers: { layout: "diffusers", prefix: "", patch: "conv3d" },
  comfyui: { layout: "comfyui", prefix: COMFYUI_PREFIX, patch: "conv3d" },
  // What the public rCM code trains from: its network is `net`, its patch embedding a linear layer.
  dcp: { layout: "original", prefix: "net.", patch: "linear" },
};
export const PATCH_FORMS = ["conv3d", "linear"] as const;
export type PatchForm = (typeof PATCH_FORMS)[number];

const TORCH = [".pth", ".pt"];

/** The format of a target: the one asked for, else what its ending says. Throws: E_ARG when they do not go together. */
export function formatOf(out: string, asked: ExportFormat | null): ExportFormat {
  const ending = extname(out);
  const file = ending === ".safetensors" || TORCH.includes(ending);
  const wrong = (want: string): RcmError => new RcmError("E_ARG", `--out does not fit the format ${asked ?? ""}`.trim(), { op: "export", want, got: out });
  if (asked === null && !file) throw new RcmError("E_ARG", "the output's ending names the format", { op: "export", want: ".safetensors, .pth or .pt; or --format diffusers or dcp for a folder", got: out });
  if (asked === "comfyui" && ending !== ".safetensors") throw wrong("a .safetensors file");
  if (asked === "original" && !file) throw wrong(".safetensors, .pth or .pt");
  if ((asked === "diffusers" || asked === "dcp") && file) throw wrong("a folder");
  return asked ?? "original";
}

export interface WriteOptions {
  /** Bytes of tensors a file of the diffusers folder holds at most. */
  shardBytes: number;
  metadata: Record<string, string>;
  config: WanConfig | null;
  /** Replaces a folder that is there. */
  force: boolean;
}

export interface Written {
  /** What a reader opens. */
  root: string;
  files: { path: string; bytes: number }[];
}

/** Writes tensors in a format; what is there appears whole or not at all. Throws: E_ARG, E_IO. */
export function writeFormat(format: ExportFormat, out: string, tensors: readonly OutTensor[], o: WriteOptions): Written {
  const sized = (root: string, paths: string[]): Written => ({ root, files: paths.map((path) => ({ path, bytes: statSync(path).size })) });
  if (format === "diffusers") {
    const target = join(out, "transformer");
    using folder = new AtomicFolder(target, o.force);
    const names = writeDiffusers(folder.at, tensors, o);
    folder.commit();
    return sized(target, names.map((n) => join(target, n)));
  }
  if (format === "dcp") {
    using folder = new AtomicFolder(out, o.force);
    writeDcp(folder.at, tensors);
    folder.commit();
    return sized(out, [".metadata", "__0_0.distcp"].map((n) => join(out, n)));
  }
  using file = new AtomicFile(out);
  if (TORCH.includes(extname(out))) streamTorch(file, tensors);
  else streamSafetensors(file, tensors, { format: "pt", ...o.metadata });
  file.commit();
  return sized(out, [out]);
}

/** Fields of diffusers' WanTransformer3DModel. Throws: E_ARG for a network that it cannot be. */
export function diffusersConfig(c: WanConfig, imageDim: number | null): Record<string, unknown> {
  if (c.secondTime) throw new RcmError("E_ARG", "a MeanFlow student has a second time embedding, which diffusers does not know", { op: "export", want: "--format original" });
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

const WEIGHTS = "diffusion_pytorch_model";

/** config.json and one weight file, or shards with their index; gives their names. */
function writeDiffusers(folder: string, tensors: readonly OutTensor[], { shardBytes, config, metadata }: WriteOptions): string[] {
  if (!config) throw new RcmError("E_FORMAT", "the sizes of this network are not known (heads do not follow from shapes): export from its run folder", { op: "export" });
  const image = tensors.find((t) => t.name === "condition_embedder.image_embedder.norm1.weight");
  writeFileAtomic(join(folder, "config.json"), `${JSON.stringify(diffusersConfig(config, image ? image.shape[0] : null), null, 2)}\n`);
  const shards = splitIntoShards(tensors, shardBytes);
  const numbered = (i: number): string => String(i).padStart(5, "0");
  const names = shards.map((_, i) => (shards.length === 1 ? `${WEIGHTS}.safetensors` : `${WEIGHTS}-${numbered(i + 1)}-of-${numbered(shards.length)}.safetensors`));
  shards.forEach((shard, i) => {
    using file = new AtomicFile(join(folder, names[i]));
    streamSafetensors(file, shard, { format: "pt", ...metadata });
    file.commit();
  });
  if (shards.length === 1) return ["config.json", ...names];
  const index = {
    metadata: { total_size: tensors.reduce((n, t) => n + t.bytes, 0) },
    weight_map: Object.fromEntries(shards.flatMap((shard, i) => shard.map((t) => [t.name, basename(names[i])]))),
  };
  writeFileAtomic(join(folder, `${WEIGHTS}.safetensors.index.json`), `${JSON.stringify(index, null, 2)}\n`);
  return ["config.json", `${WEIGHTS}.safetensors.index.json`, ...names];
}

/** Cuts a list so that no part holds more than `most` bytes, unless one tensor alone does. */
export function splitIntoShards(tensors: readonly OutTensor[], most: number): OutTensor[][] {
  const out: OutTensor[][] = [[]];
  let bytes = 0;
  for (const t of tensors) {
    if (bytes + t.bytes > most && out[out.length - 1].length > 0) {
      out.push([]);
      bytes = 0;
    }
    out[out.length - 1].push(t);
    bytes += t.bytes;
  }
  return out;
}
