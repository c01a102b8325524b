import { extname } from "node:path";
import type { DType, HostTensor } from "../dtype.ts";
import { hostTensor, hostValues } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { writeFileAtomic } from "../io/atomic.ts";
import { readSafetensors, writeSafetensors } from "../io/safetensors.ts";
import { readTorchTensors, writeTorch } from "../io/torch.ts";
import { readWeights, resolveWeights, type WeightKind } from "./weights.ts";

export interface ExportOptions {
  weights: string;
  kind: WeightKind;
  /** `.safetensors`, `.pth` or `.pt`. */
  out: string;
  dtype: "f32" | "bf16";
  /** Put before every key, for example `net.`. */
  prefix: string;
  /** Written into the safetensors header. */
  metadata: Record<string, string>;
}

export interface ExportSummary {
  out: string;
  source: string;
  tensors: number;
  parameters: number;
  bytes: number;
  dtype: string;
}

/** Rounds to the wanted storage. */
export function convert(t: HostTensor, dtype: DType): HostTensor {
  return t.dtype === dtype ? t : hostTensor(dtype, t.shape, hostValues(t));
}

/**
 * Writes network weights under the original Wan key names, then reads the file back and compares every byte.
 * Throws: E_ARG for an unknown ending, E_IO, and E_INTERNAL should the file read back differ.
 */
export function exportWeights(o: ExportOptions): ExportSummary {
  const ending = extname(o.out);
  if (![".safetensors", ".pth", ".pt"].includes(ending)) throw new RcmError("E_ARG", "the output's ending names the format", { op: "export", want: ".safetensors, .pth or .pt", got: o.out });
  const source = resolveWeights(o.weights);
  const tensors = new Map([...readWeights(o.weights, o.kind)].map(([name, t]) => [o.prefix + name, convert(t, o.dtype)] as const));
  if (ending === ".safetensors") writeSafetensors(o.out, tensors, { format: "pt", ...o.metadata });
  else writeFileAtomic(o.out, writeTorch(tensors));
  const back = ending === ".safetensors" ? readSafetensors(o.out).tensors : readTorchTensors(o.out);
  for (const [name, t] of tensors) {
    const other = back.get(name);
    if (!other || other.dtype !== t.dtype || Buffer.compare(other.data, t.data) !== 0) throw new RcmError("E_INTERNAL", `${o.out} reads back differently at ${name}`, { op: "export" });
  }
  let [parameters, bytes] = [0, 0];
  for (const t of tensors.values()) {
    parameters += t.shape.reduce((a, b) => a * b, 1);
    bytes += t.data.length;
  }
  return { out: o.out, source, tensors: tensors.size, parameters, bytes, dtype: o.dtype };
}

