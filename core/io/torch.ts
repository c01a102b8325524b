import { readFileSync } from "node:fs";
import type { HostTensor } from "../dtype.ts";
import { dtypeBytes, numel } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { MemoryFile, type OutFile } from "./out_file.ts";
import { orderedDict, pickle, tensorPickle } from "./pickler.ts";
import { memorySource } from "./source.ts";
import { copyStrided, denseStrides } from "./strided.ts";
import { hostStream, type TensorStream } from "./tensor_stream.ts";
import { locateTorch, type TorchTree, type TorchWindow } from "./torch_read.ts";
import { ZipWriter } from "./torch_zip.ts";

export type TorchValue = TorchTree<HostTensor>;

const bad = (name: string, message: string, got?: unknown): RcmError =>
  new RcmError("E_FORMAT", `${name}: ${message}`, { op: "torch", got });

export const isHostTensor = (v: TorchValue): v is HostTensor =>
  typeof v === "object" && v !== null && !Array.isArray(v) && !(v instanceof Map);

/**
 * Reads a small file of torch.save (zip or legacy) whole: tensors become host tensors, dicts maps. Checksums are
 * verified, nothing is executed. Throws: E_IO, E_FORMAT naming the member.
 */
export function readTorch(
  source: string | Uint8Array,
  name = typeof source === "string" ? source : "tensor file",
): TorchValue {
  const bytes = typeof source === "string" ? readFile(source) : source;
  return mapTree(locateTorch(memorySource(bytes, name), { verify: true }).tree, (w) => toHost(w, bytes));
}

function readFile(path: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch (cause) {
    throw new RcmError("E_IO", `cannot read ${path}: ${(cause as Error).message}`, { op: "torch", cause });
  }
}

function mapTree<A, B>(v: TorchTree<A>, leaf: (a: A) => B): TorchTree<B> {
  if (v === null || typeof v !== "object") return v as TorchTree<B>;
  if (Array.isArray(v)) return v.map((one) => mapTree(one, leaf));
  if (v instanceof Map) return new Map([...v].map(([k, one]) => [k, mapTree(one, leaf)]));
  return leaf(v);
}

/** Windows a dense tensor; a strided one is made contiguous. */
function toHost({ dtype, shape, offset, bytes, strides }: TorchWindow, file: Uint8Array): HostTensor {
  const data = file.subarray(offset, offset + bytes);
  if (!strides) return { dtype, shape, data };
  const out = new Uint8Array(new ArrayBuffer(numel(shape) * dtypeBytes(dtype)));
  copyStrided({ data, strides }, { data: out, strides: denseStrides(shape) }, shape, dtypeBytes(dtype));
  return { dtype, shape, data: out };
}

/** Reads a file that holds one tensor. Throws: E_FORMAT when it holds something else. */
export function readTorchTensor(source: string | Uint8Array, name?: string): HostTensor {
  const v = readTorch(source, name);
  if (!isHostTensor(v)) throw bad(name ?? "tensor file", "does not hold one tensor");
  return v;
}

/** Reads a state dict, unwrapping one level such as {"state_dict": ...}. Throws: E_FORMAT when there is none. */
export function readTorchTensors(
  source: string | Uint8Array,
  name = typeof source === "string" ? source : "tensor file",
): Map<string, HostTensor> {
  let v = readTorch(source, name);
  if (v instanceof Map && ![...v.values()].some(isHostTensor)) {
    const inner = [...v.values()].filter((one): one is Map<string, TorchValue> => one instanceof Map);
    if (inner.length === 1) v = inner[0];
  }
  if (!(v instanceof Map)) throw bad(name, "does not hold a state dict");
  const out = new Map<string, HostTensor>();
  for (const [key, value] of v) if (isHostTensor(value)) out.set(key, value);
  if (out.size === 0) throw bad(name, "holds no tensors", [...v.keys()].slice(0, 5));
  return out;
}

/** Bytes of a .pt file with one tensor or a state dict, in the layout of torch.save. */
export function writeTorch(value: HostTensor | Iterable<[string, HostTensor]>): Uint8Array {
  const file = new MemoryFile();
  if (Symbol.iterator in value) streamTorch(file, [...value].map(([name, t]) => hostStream(name, t)));
  else streamTorchTensor(file, hostStream("tensor", value));
  return file.contents;
}

/** Appends a state dict in the layout of torch.save; its size is not limited. */
export function streamTorch(file: OutFile, tensors: readonly TensorStream[]): void {
  archive(
    file,
    pickle(orderedDict(tensors.map((t, i) => [t.name, tensorPickle(String(i), t.dtype, t.shape)]))),
    tensors,
  );
}

/** Appends a single tensor in the layout of torch.save. */
export function streamTorchTensor(file: OutFile, tensor: TensorStream): void {
  archive(file, pickle(tensorPickle("0", tensor.dtype, tensor.shape)), [tensor]);
}

function archive(file: OutFile, data: Uint8Array, tensors: readonly TensorStream[]): void {
  const zip = new ZipWriter(file);
  const text = (name: string, s: string): void => zip.member(name, s.length, [new TextEncoder().encode(s)]);
  zip.member("archive/data.pkl", data.length, [data]);
  text("archive/byteorder", "little");
  tensors.forEach((t, i) => zip.member(`archive/data/${i}`, t.bytes, t.chunks()));
  text("archive/version", "3\n");
  text("archive/.data/serialization_id", "0".repeat(40));
  zip.end();
}
