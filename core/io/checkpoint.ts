import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { dtypeBytes, numel, type DType } from "../dtype.ts";
import { RcmError } from "../error.ts";
import type { Tensor } from "../tensor.ts";

export interface StoredTensor { name: string; dtype: DType; shape: number[]; file: string; offset: number; bytes: number; strides?: number[] }
export type Stored = StoredTensor;
export interface Checkpoint { path: string; format: string; tensors: ReadonlyMap<string, Stored>; metadata: Record<string, string>; bytes: number }
const NAMES: Record<string, DType> = { F32: "f32", BF16: "bf16", F16: "f16", F64: "f64", I32: "i32", I64: "i64", U8: "u8", BOOL: "bool" };

export function openCheckpoint(path: string): Checkpoint {
  const bad = (m: string): RcmError => new RcmError("E_FORMAT", `${path}: ${m}`, { op: "checkpoint" });
  let fd: number;
  try { fd = openSync(path, "r"); } catch (cause) { throw new RcmError("E_IO", `cannot read ${path}: ${(cause as Error).message}`, { op: "checkpoint" }); }
  try {
    const size = fstatSync(fd).size;
    const head = new Uint8Array(new ArrayBuffer(8));
    if (readSync(fd, head, 0, 8, 0) < 8) throw bad("shorter than a header");
    const n = Number(new DataView(head.buffer).getBigUint64(0, true));
    if (n > size - 8) throw bad("header longer than the file");
    const text = new Uint8Array(n);
    readSync(fd, text, 0, n, 8);
    const { __metadata__: metadata = {}, ...rest } = JSON.parse(new TextDecoder().decode(text));
    const tensors = new Map<string, Stored>();
    for (const [name, t] of Object.entries<any>(rest)) {
      if (t.data_offsets[1] > size - 8 - n) throw bad(`tensor "${name}" lies outside the file`);
      const dtype = NAMES[t.dtype];
      tensors.set(name, { name, dtype, shape: t.shape, file: path, offset: 8 + n + t.data_offsets[0], bytes: numel(t.shape) * dtypeBytes(dtype) });
    }
    return { path, format: "safetensors", tensors, metadata, bytes: size };
  } finally { closeSync(fd); }
}

export function readStored(t: Stored, into: Tensor): void {
  const fd = openSync(t.file, "r");
  try {
    const target = t.dtype === into.dtype ? into : into.device.empty(t.shape, t.dtype);
    target.setChunks((buffer, at) => { readSync(fd, buffer, 0, buffer.length, t.offset + at); });
    if (target !== into) into.set(target);
  } finally { closeSync(fd); }
}
