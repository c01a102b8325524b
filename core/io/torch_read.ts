import { dtypeBytes, numel, type DType } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { headOf, MAX_HEADER, partOf, type Source } from "./source.ts";
import { isDense, spanOf } from "./strided.ts";
import { isTensor, type PickleStorage, type PickleTensor, type PickleValue } from "./pickle_values.ts";
import { unpickleFrom } from "./unpickle.ts";
import { ZipDirectory } from "./zip_read.ts";

/** Locations of the tensors of a torch.save file: zip members, or the storages after a legacy pickle. Reads no data. */

export const STORAGES: Record<string, DType> = {
  Float: "f32",
  BFloat16: "bf16",
  Half: "f16",
  Double: "f64",
  Int: "i32",
  Long: "i64",
  Byte: "u8",
  Bool: "bool",
};
/** torch's names of dtypes. */
export const TORCH_DTYPES: Record<string, DType> = {
  float32: "f32",
  float: "f32",
  bfloat16: "bf16",
  float16: "f16",
  half: "f16",
  float64: "f64",
  double: "f64",
  int32: "i32",
  int: "i32",
  int64: "i64",
  long: "i64",
  uint8: "u8",
  bool: "bool",
  float8_e4m3fn: "f8_e4m3",
};
/** Element bytes of storages that are skipped. */
const OTHER_BYTES: Record<string, number> = {
  Char: 1,
  Short: 2,
  ComplexFloat: 8,
  ComplexDouble: 16,
  Untyped: 1,
  QInt8: 1,
  QUInt8: 1,
  QInt32: 4,
};

/** A tensor's bytes in the source; strides in elements when it is not dense. */
export interface TorchWindow {
  dtype: DType;
  shape: number[];
  offset: number;
  bytes: number;
  strides?: number[];
}

export type TorchTree<T> = T | Map<string, TorchTree<T>> | TorchTree<T>[] | string | number | boolean | null;

/** Finds the bytes of a storage. */
type FindStorage = (s: PickleStorage) => { offset: number; size: number };

/** First number of every legacy file, rounded to a double. */
const LEGACY_MAGIC = 0x1950a86a20f9469cfc6c;
const LEGACY_PROTOCOL = 1001;

const bad = (name: string, message: string, got?: unknown, want?: unknown): RcmError =>
  new RcmError("E_FORMAT", `${name}: ${message}`, { op: "torch", got, want });
const entryOf = <T>(table: Record<string, T>, key: string): T | undefined =>
  Object.hasOwn(table, key) ? table[key] : undefined;

export interface LocatedTorch {
  format: "torch" | "torch-legacy";
  tree: TorchTree<TorchWindow>;
}

/** Reads names, shapes and locations; `verify` also reads all data and checks checksums. Throws: E_IO, E_FORMAT. */
export function locateTorch(source: Source, { verify }: { verify: boolean }): LocatedTorch {
  return headOf(source, 1)[0] === 0x80
    ? { format: "torch-legacy", tree: locateLegacy(source) }
    : { format: "torch", tree: locateZip(source, verify) };
}

function locateZip(source: Source, verify: boolean): TorchTree<TorchWindow> {
  const { name } = source;
  const zip = new ZipDirectory(source);
  const pickle = zip.names.find((k) => k === "data.pkl" || k.endsWith("/data.pkl"));
  if (pickle === undefined) throw bad(name, "has no data.pkl", zip.names.slice(0, 4));
  const root = pickle.slice(0, -"data.pkl".length);
  const order = zip.read(`${root}byteorder`, 64);
  if (order && new TextDecoder().decode(order) !== "little") throw bad(name, "is big-endian");
  if (verify) for (const member of zip.names) zip.check(member);
  const data = zip.read(pickle, MAX_HEADER) as Uint8Array;
  const found = new Map<string, { offset: number; size: number }>();
  const find: FindStorage = ({ storage }) => {
    const known = found.get(storage);
    if (known) return known;
    const member = zip.locate(`${root}data/${storage}`);
    if (!member) throw bad(name, `lacks the storage data/${storage}`);
    found.set(storage, member);
    return member;
  };
  const { value } = unpickleFrom({ name, size: data.length, read: (at, n) => data.subarray(at, at + n) });
  return convert(value, find, name);
}

/**
 * The legacy format: magic, protocol, system, the object, the list of storages, then each storage: int64 count,
 * elements.
 * Source: torch/serialization.py, _legacy_save.
 */
function locateLegacy(source: Source): TorchTree<TorchWindow> {
  const { name } = source;
  let at = 0;
  const next = (): ReturnType<typeof unpickleFrom> => {
    const one = unpickleFrom(partOf(source, at, source.size - at));
    at += one.end;
    return one;
  };
  if (next().value !== LEGACY_MAGIC) throw bad(name, "is a pickle, but no file of torch.save");
  const protocol = next().value;
  if (protocol !== LEGACY_PROTOCOL)
    throw bad(name, "has an unknown legacy protocol", String(protocol), LEGACY_PROTOCOL);
  const system = next().value;
  if (system instanceof Map && system.get("little_endian") === false) throw bad(name, "is big-endian");
  const { value, storages } = next();
  const keys = next().value;
  if (!Array.isArray(keys)) throw bad(name, "has no list of storages");
  const places = new Map<string, { offset: number; size: number }>();
  for (const key of keys) {
    const storage = typeof key === "string" ? storages.get(key) : undefined;
    const dtype = storage && entryOf(STORAGES, storage.dtype);
    const each = dtype ? dtypeBytes(dtype) : storage && entryOf(OTHER_BYTES, storage.dtype);
    if (!storage || each === undefined || places.has(storage.storage))
      throw bad(name, "lists a storage that nothing describes", String(key));
    if (at + 8 > source.size) throw bad(name, `ends before storage ${storage.storage}`);
    const count = new DataView(source.read(at, 8).slice().buffer).getBigInt64(0, true);
    if (count !== BigInt(storage.count))
      throw bad(name, `storage ${storage.storage} has another length than it says`, String(count), storage.count);
    const size = storage.count * each;
    if (size > source.size - at - 8) throw bad(name, `storage ${storage.storage} runs past the end`, source.size);
    places.set(storage.storage, { offset: at + 8, size });
    at += 8 + size;
  }
  const find: FindStorage = ({ storage }) => {
    const place = places.get(storage);
    if (!place) throw bad(name, `lacks the storage ${storage}`);
    return place;
  };
  return convert(value, find, name);
}

function convert(v: PickleValue, find: FindStorage, name: string): TorchTree<TorchWindow> {
  if (v === null || typeof v !== "object") return v;
  if (Array.isArray(v)) return v.map((one) => convert(one, find, name));
  if (v instanceof Map) {
    const out = new Map<string, TorchTree<TorchWindow>>();
    for (const [key, value] of v) {
      if (typeof key !== "string" && typeof key !== "number") throw bad(name, "has a dict key that is no text");
      out.set(String(key), convert(value, find, name));
    }
    return out;
  }
  if (isTensor(v)) return windowOf(v, find, name);
  throw bad(name, "holds a value that is no tensor, dict, list or scalar");
}

function windowOf(t: PickleTensor, find: FindStorage, name: string): TorchWindow {
  const { tensor: storage, shape, strides } = t;
  const dtype = t.dtype === null ? entryOf(STORAGES, storage.dtype) : entryOf(TORCH_DTYPES, t.dtype);
  if (dtype === undefined)
    throw bad(name, `holds ${t.dtype ?? storage.dtype} values`, undefined, Object.keys(STORAGES));
  const each = dtypeBytes(dtype);
  const place = find(storage);
  const bytes = storage.dtype === "Untyped" ? storage.count : storage.count * each;
  if (bytes > place.size) throw bad(name, `storage ${storage.storage} is shorter than it says`, place.size, bytes);
  const n = numel(shape);
  const first = storage.start + t.offset;
  const span = spanOf(shape, strides);
  if (
    !Number.isSafeInteger(n) ||
    !Number.isSafeInteger(span) ||
    !Number.isSafeInteger(first) ||
    (n > 0 && (first + span) * each > place.size)
  ) {
    throw bad(name, `a tensor reaches outside its storage ${storage.storage}`, { shape, strides, offset: t.offset });
  }
  if (n * each > place.size) throw bad(name, "a tensor repeats its storage", shape);
  const dense = isDense(shape, strides);
  return {
    dtype,
    shape,
    offset: n === 0 ? place.offset : place.offset + first * each,
    bytes: (dense ? n : span) * each,
    ...(dense ? {} : { strides }),
  };
}
