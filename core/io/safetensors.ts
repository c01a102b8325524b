import { readFileSync } from "node:fs";
import { dtypeBytes, numel, type DType, type HostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { AtomicFile, type OutFile } from "./out_file.ts";
import { memorySource, type Source } from "./source.ts";
import { hostStream, type TensorStream } from "./tensor_stream.ts";

const NAMES: Record<string, DType> = {
  F32: "f32",
  BF16: "bf16",
  F16: "f16",
  F64: "f64",
  I32: "i32",
  I64: "i64",
  U8: "u8",
  BOOL: "bool",
  F8_E4M3: "f8_e4m3",
};
const CODES = Object.fromEntries(Object.entries(NAMES).map(([code, dtype]) => [dtype, code])) as Record<DType, string>;

/** Longest header; a limit of the format. */
const MAX_HEADER = 100_000_000;

export interface Safetensors {
  metadata: Record<string, string>;
  tensors: Map<string, HostTensor>;
}

/**
 * Reads a whole file; tensors are windows into it. Throws: E_IO when it cannot be read, E_FORMAT naming the fault and
 * its location.
 */
export function readSafetensors(path: string): Safetensors {
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(path);
  } catch (cause) {
    throw new RcmError("E_IO", `cannot read ${path}: ${(cause as Error).message}`, { op: "safetensors", cause });
  }
  return parseSafetensors(bytes, path);
}

export function parseSafetensors(bytes: Uint8Array, path: string): Safetensors {
  const { metadata, entries } = locateSafetensors(memorySource(bytes, path));
  return {
    metadata,
    tensors: new Map(
      entries.map(({ name, dtype, shape, offset, bytes: n }) => [
        name,
        { dtype, shape, data: bytes.subarray(offset, offset + n) },
      ]),
    ),
  };
}

/** Location of a tensor in its file. */
export interface SafetensorsEntry {
  name: string;
  dtype: DType;
  shape: number[];
  offset: number;
  bytes: number;
}

/**
 * Reads the header alone, and checks that every tensor lies inside the file. Throws: E_IO, E_FORMAT naming the fault
 * and its location.
 */
export function locateSafetensors(source: Source): { metadata: Record<string, string>; entries: SafetensorsEntry[] } {
  const bad = (message: string, want?: unknown, got?: unknown): RcmError =>
    new RcmError("E_FORMAT", `${source.name}: ${message}`, { op: "safetensors", want, got });
  if (source.size < 8) throw bad("shorter than a header", "at least 8 bytes", `${source.size} bytes`);
  const headerLength = new DataView(source.read(0, 8).slice().buffer).getBigUint64(0, true);
  if (headerLength > BigInt(Math.min(MAX_HEADER, source.size - 8)))
    throw bad("header longer than the file", `at most ${Math.min(MAX_HEADER, source.size - 8)}`, String(headerLength));
  const start = 8 + Number(headerLength);
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(source.read(8, Number(headerLength))));
  } catch (cause) {
    throw bad(`header is not JSON: ${(cause as Error).message}`);
  }
  if (typeof header !== "object" || header === null || Array.isArray(header)) throw bad("header is not an object");
  const metadata: Record<string, string> = {};
  const entries: SafetensorsEntry[] = [];
  for (const [name, info] of Object.entries(header as Record<string, unknown>)) {
    if (typeof info !== "object" || info === null) throw bad(`entry "${name}" is not an object`);
    if (name === "__metadata__") {
      for (const [k, v] of Object.entries(info)) {
        if (typeof v !== "string") throw bad(`metadata "${k}" is not text`);
        metadata[k] = v;
      }
      continue;
    }
    const { dtype: code, shape, data_offsets: span } = info as Record<string, unknown>;
    const dtype = typeof code === "string" && Object.hasOwn(NAMES, code) ? NAMES[code] : undefined;
    if (dtype === undefined) throw bad(`tensor "${name}" has an unknown dtype`, Object.keys(NAMES), code);
    if (!isCounts(shape) || !isCounts(span) || span.length !== 2)
      throw bad(`tensor "${name}" has no valid shape and data_offsets`);
    const size = numel(shape) * dtypeBytes(dtype);
    if (span[1] > source.size - start || span[1] < span[0])
      throw bad(`tensor "${name}" lies outside the file`, `within ${source.size - start} bytes`, span);
    if (!Number.isSafeInteger(size) || span[1] - span[0] !== size)
      throw bad(`tensor "${name}" has the wrong size`, size, span[1] - span[0]);
    entries.push({ name, dtype, shape, offset: start + span[0], bytes: size });
  }
  const byPlace = [...entries].sort((a, b) => a.offset - b.offset || a.bytes - b.bytes);
  for (let i = 1; i < byPlace.length; i++) {
    const before = byPlace[i - 1];
    if (byPlace[i].offset < before.offset + before.bytes)
      throw bad(`tensors "${before.name}" and "${byPlace[i].name}" overlap`);
  }
  return { metadata, entries };
}

const isCounts = (v: unknown): v is number[] => Array.isArray(v) && v.every((d) => Number.isSafeInteger(d) && d >= 0);

/** Writes tensors under their names, atomically. Throws: E_IO, E_ARG when two share a name. */
export function writeSafetensors(
  path: string,
  tensors: Iterable<[string, HostTensor]>,
  metadata: Record<string, string> = {},
): void {
  using file = new AtomicFile(path);
  streamSafetensors(file, [...tensors].map(([name, t]) => hostStream(name, t)), metadata);
  file.commit();
}

/**
 * Writes a whole file. The data of wider elements come first, so that every tensor is aligned to its element size,
 * which readers that map the file need. The header has the given order, and the tensors are read in that order.
 */
export function streamSafetensors(
  file: OutFile,
  tensors: readonly TensorStream[],
  metadata: Record<string, string> = {},
): void {
  const header: Record<string, unknown> = { __metadata__: metadata };
  const place = new Map<TensorStream, number>();
  let at = 0;
  for (const t of [...tensors].sort((a, b) => dtypeBytes(b.dtype) - dtypeBytes(a.dtype))) {
    place.set(t, at);
    at += t.bytes;
  }
  for (const t of tensors) {
    if (Object.hasOwn(header, t.name))
      throw new RcmError("E_ARG", `two tensors are named "${t.name}"`, { op: "safetensors" });
    const from = place.get(t) as number;
    header[t.name] = { dtype: CODES[t.dtype], shape: t.shape, data_offsets: [from, from + t.bytes] };
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const padded = new Uint8Array(Math.ceil(text.length / 8) * 8).fill(0x20);
  padded.set(text);
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, BigInt(padded.length), true);
  file.write(length);
  file.write(padded);
  const base = file.position;
  for (const t of tensors) {
    const from = base + (place.get(t) as number);
    let done = 0;
    for (const chunk of t.chunks()) {
      file.patch(from + done, chunk);
      done += chunk.length;
    }
    if (done !== t.bytes)
      throw new RcmError("E_INTERNAL", `${t.name} gave ${done} bytes instead of ${t.bytes}`, { op: "safetensors" });
  }
}
