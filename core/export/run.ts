import { numel } from "../dtype.ts";
import { RcmError } from "../error.ts";
import type { Family, PatchForm } from "../models/family.ts";
import type { Layout, WeightKind } from "../models/layout.ts";
import { Device } from "../tensor.ts";
import type { DeviceChoice } from "../../ffi/open.ts";
import { convertAll, RoundingSum, type OutDType, type OutTensor, type Rounding } from "./convert.ts";
import { FORMAT_KEYS, formatOf, writeFormat, type ExportFormat, type Written } from "./formats.ts";
import { exportLora, type LoraReport } from "./lora.ts";
import type { LoraLayout } from "./lora_layout.ts";
import { mergeSources, type MergeReport } from "./merge.ts";
import { openSource, type ExportSource } from "./source.ts";
import { verifyWritten } from "./verify.ts";

export interface ExportProgress {
  stage: "write" | "verify" | "lora";
  /** Bytes, or layers of a LoRA. */
  done: number;
  total: number;
  seconds: number;
}

export interface ExportOptions {
  /** Run folder, checkpoint, weight file or folder of any format that can be read. */
  weights: string;
  kind: WeightKind;
  /** A file, whose extension names the format, or a folder. */
  out: string;
  /** Null: by the extension of `out`. */
  format?: ExportFormat | null;
  dtype: OutDType;
  /** Put before every key, for example `net.`; null: the prefix of the format. */
  prefix?: string | null;
  /** Form of the patch embedding's weight; null: the form of the format. */
  patch?: PatchForm | null;
  /** Largest file of a diffusers folder, in bytes. */
  shardBytes?: number;
  /** Replaces an existing output folder. */
  force?: boolean;
  /** Written into the headers of safetensors files. */
  metadata: Record<string, string>;
  /** Writes the difference to these weights as a LoRA. */
  lora?: { base: string; rank: number } | null;
  /** Adds weight * (weights - base) to the target, and writes that. */
  merge?: { target: string; base: string; weight: number } | null;
  device?: DeviceChoice;
  onProgress?: (p: ExportProgress) => void;
}

export interface ExportSummary {
  out: string;
  source: string;
  format: ExportFormat | `lora-${LoraLayout}`;
  dtype: string;
  files: Written["files"];
  tensors: number;
  parameters: number;
  bytes: number;
  seconds: number;
  /** Rounding error of the storage dtype. */
  rounding: Rounding | null;
  lora: LoraReport | null;
  merge: MergeReport | null;
}

export const SHARD_BYTES = 5e9;

/**
 * Writes network weights in a public format, a tensor at a time, then reads the output back and compares every byte.
 * Throws: E_ARG, E_IO, E_FORMAT, E_NONFINITE, and E_INTERNAL when the two differ.
 */
export function exportWeights(o: ExportOptions): ExportSummary {
  if (o.lora && o.merge) throw new RcmError("E_ARG", "a LoRA and a merge are two exports", { op: "export" });
  const began = performance.now();
  const seconds = (): number => (performance.now() - began) / 1000;
  if (o.lora) loraTarget(o);
  const format = o.lora ? null : formatOf(o.out, o.format ?? null);
  const student = openSource(o.weights, o.kind);
  using device = Device.open(o.device ?? { device: "auto" });
  const base = { out: o.out, source: student.path, dtype: o.dtype };
  if (o.lora) {
    const { layout, dtype } = loraTarget(o);
    const lora = exportLora(device, student, openSource(o.lora.base, o.kind), {
      out: o.out, layout, dtype, rank: o.lora.rank,
      metadata: { ...student.origin, ...o.metadata },
      onLayer: (done, total) => o.onProgress?.({ stage: "lora", done, total, seconds: seconds() }),
    });
    const bytes = Bun.file(o.out).size;
    return {
      ...base,
      format: `lora-${layout}`,
      files: [{ path: o.out, bytes }],
      tensors: lora.tensors,
      parameters: lora.parameters,
      bytes,
      seconds: seconds(),
      rounding: null,
      lora,
      merge: null,
    };
  }
  const merged = o.merge
    ? mergeSources(openSource(o.merge.target, o.kind), student, openSource(o.merge.base, o.kind), o.merge.weight)
    : null;
  const note: Record<string, string> = o.merge ? { merge_weight: String(o.merge.weight) } : {};
  const metadata = { ...student.origin, ...note, ...o.metadata };
  const source = merged?.source ?? student;
  const written = writeSource({ device, source, format: format as ExportFormat, seconds }, { ...o, metadata });
  return {
    ...base,
    format: format as ExportFormat,
    ...written,
    seconds: seconds(),
    lora: null,
    merge: merged?.report ?? null,
  };
}

/** Layout and dtype of a LoRA. Throws: E_ARG for formats and dtypes that a LoRA has not. */
function loraTarget(o: ExportOptions): { layout: LoraLayout; dtype: "bf16" | "f16" | "f32" } {
  const layout = o.format ?? "comfyui";
  if (layout !== "comfyui" && layout !== "diffusers")
    throw new RcmError("E_ARG", "a LoRA has another format", {
      op: "export",
      want: "comfyui or diffusers",
      got: layout,
    });
  if (o.dtype === "f8_e4m3")
    throw new RcmError("E_ARG", "the factors of a LoRA are not stored in f8", {
      op: "export",
      want: "bf16, f16 or f32",
    });
  if (!o.out.endsWith(".safetensors"))
    throw new RcmError("E_ARG", "a LoRA is one .safetensors file", { op: "export", got: o.out });
  return { layout, dtype: o.dtype };
}

/** Throws: E_ARG when a family has no such layout. */
function layoutOf(family: Family, name: string): Layout {
  const found = family.layouts.find((l) => l.name === name);
  if (!found)
    throw new RcmError("E_ARG", `${family.title} networks have no ${name} format`, {
      op: "export",
      want: family.layouts.map((l) => l.name),
    });
  return found;
}

/** The large matrices of the blocks, stored in f8; norms, biases, modulation, embeddings and the head stay bf16. */
function blockMatrices({ family, tensors }: ExportSource): (name: string) => boolean {
  const blocks = new Set(
    [...tensors.keys()].filter((name) => family.blockOf(name) !== null && family.roleOf(name) === "matrix"),
  );
  return (name) => blocks.has(name);
}

interface WriteJob {
  device: Device;
  source: ExportSource;
  format: ExportFormat;
  /** Time since the export began. */
  seconds: () => number;
}

function writeSource(
  { device, source, format, seconds }: WriteJob,
  o: ExportOptions,
): Pick<ExportSummary, "files" | "tensors" | "parameters" | "bytes" | "rounding"> {
  const keys = FORMAT_KEYS[format];
  const { family, config } = source;
  const layout = layoutOf(family, keys.layout);
  const prefix = o.prefix ?? keys.prefix ?? layout.prefix;
  const form = o.patch ?? keys.patch;
  const sum = new RoundingSum();
  let done = 0;
  let total = 0;
  const report =
    (stage: ExportProgress["stage"]) =>
    (bytes: number): void =>
      o.onProgress?.({ stage, done: (done += bytes), total, seconds: seconds() });
  const tensors: OutTensor[] = convertAll(device, source.tensors.values(), {
    dtype: o.dtype,
    key: (name) => prefix + layout.fromCanonical(name),
    shape: (name, shape) => family.storedShape(name, shape, config, form),
    blockMatrix: blockMatrices(source),
    quantNotes: format === "comfyui",
    sum,
    onDone: report("write"),
  });
  total = tensors.reduce((n, t) => n + t.bytes, 0);
  const { root, files } = writeFormat(format, o.out, tensors, {
    shardBytes: o.shardBytes ?? SHARD_BYTES,
    metadata: { ...(config ? family.note(config) : {}), ...o.metadata },
    source,
    force: o.force ?? false,
  });
  done = 0;
  verifyWritten(root, tensors, report("verify"));
  return {
    files,
    tensors: tensors.length,
    parameters: [...source.tensors.values()].reduce((n, t) => n + numel(t.shape), 0),
    bytes: total,
    rounding: sum.result,
  };
}
