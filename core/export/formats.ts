import { statSync } from "node:fs";
import { basename, extname, join } from "node:path";
import { RcmError } from "../error.ts";
import { writeFileAtomic } from "../io/atomic.ts";
import { writeDcp } from "../io/dcp_write.ts";
import { AtomicFile } from "../io/out_file.ts";
import { AtomicFolder } from "../io/out_folder.ts";
import { streamSafetensors } from "../io/safetensors.ts";
import { streamTorch } from "../io/torch.ts";
import type { PatchForm } from "../models/family.ts";
import type { ExportSource } from "./source.ts";
import type { OutTensor } from "./convert.ts";

export const FORMATS = ["original", "diffusers", "comfyui", "dcp"] as const;
export type ExportFormat = (typeof FORMATS)[number];

/** A format's key layout, its prefix where that is not the layout's, and the form of its patch embedding. */
export const FORMAT_KEYS: Record<ExportFormat, { layout: string; prefix: string | null; patch: PatchForm }> = {
  original: { layout: "original", prefix: null, patch: "conv3d" },
  diffusers: { layout: "diffusers", prefix: null, patch: "conv3d" },
  comfyui: { layout: "comfyui", prefix: null, patch: "conv3d" },
  // The public rCM code trains from this: keys `net.*`, the patch embedding a linear layer.
  dcp: { layout: "original", prefix: "net.", patch: "linear" },
};

const TORCH = [".pth", ".pt"];

/** The format of a target: the requested one, else by file name extension. Throws: E_ARG when the two conflict. */
export function formatOf(out: string, requested: ExportFormat | null): ExportFormat {
  const ending = extname(out);
  const file = ending === ".safetensors" || TORCH.includes(ending);
  const wrong = (want: string): RcmError =>
    new RcmError("E_ARG", `--out does not fit the format ${requested ?? ""}`.trim(), { op: "export", want, got: out });
  if (requested === null && !file)
    throw new RcmError("E_ARG", "the output's ending names the format", {
      op: "export",
      want: ".safetensors, .pth or .pt; or --format diffusers or dcp for a folder",
      got: out,
    });
  if (requested === "comfyui" && ending !== ".safetensors") throw wrong("a .safetensors file");
  if (requested === "original" && !file) throw wrong(".safetensors, .pth or .pt");
  if ((requested === "diffusers" || requested === "dcp") && file) throw wrong("a folder");
  return requested ?? "original";
}

export interface WriteOptions {
  /** Largest number of tensor bytes in a file of the diffusers folder. */
  shardBytes: number;
  metadata: Record<string, string>;
  source: Pick<ExportSource, "family" | "config" | "tensors">;
  /** Replaces an existing folder. */
  force: boolean;
}

export interface Written {
  /** Path to open for reading. */
  root: string;
  files: { path: string; bytes: number }[];
}

/** Writes tensors in a format, atomically. Throws: E_ARG, E_IO. */
export function writeFormat(
  format: ExportFormat,
  out: string,
  tensors: readonly OutTensor[],
  o: WriteOptions,
): Written {
  const sized = (root: string, paths: string[]): Written => ({
    root,
    files: paths.map((path) => ({ path, bytes: statSync(path).size })),
  });
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

const WEIGHTS = "diffusion_pytorch_model";

/** Writes config.json and one weight file, or shards with an index; returns their names. */
function writeDiffusers(
  folder: string,
  tensors: readonly OutTensor[],
  { shardBytes, source, metadata }: WriteOptions,
): string[] {
  const { family, config } = source;
  if (!config)
    throw new RcmError(
      "E_FORMAT",
      "the sizes of this network are not known (heads do not follow from shapes): export from its run folder",
      { op: "export" },
    );
  writeFileAtomic(
    join(folder, "config.json"),
    `${JSON.stringify(family.diffusers(config, source.tensors), null, 2)}\n`,
  );
  const shards = splitIntoShards(tensors, shardBytes);
  const numbered = (i: number): string => String(i).padStart(5, "0");
  const names = shards.map((_, i) =>
    shards.length === 1
      ? `${WEIGHTS}.safetensors`
      : `${WEIGHTS}-${numbered(i + 1)}-of-${numbered(shards.length)}.safetensors`,
  );
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

/** Splits a list into parts of at most `most` bytes; a larger tensor is a part by itself. */
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
