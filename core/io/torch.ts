import { readFileSync } from "node:fs";
import { dtypeBytes, numel, type DType, type HostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { TensorPickler, unpickle, type PickleTensor, type PickleValue } from "./torch_pickle.ts";
import { readZip, writeZip } from "./torch_zip.ts";

const STORAGES: Record<string, DType> = { Float: "f32", BFloat16: "bf16", Half: "f16", Double: "f64", Int: "i32", Long: "i64", Byte: "u8", Bool: "bool" };
const NAMES = Object.fromEntries(Object.entries(STORAGES).map(([name, dtype]) => [dtype, name])) as Record<DType, string>;

export type TorchValue = HostTensor | Map<string, TorchValue> | TorchValue[] | string | number | boolean | null;

const bad = (name: string, message: string, got?: unknown): RcmError => new RcmError("E_FORMAT", `${name}: ${message}`, { op: "torch", got });

export const isHostTensor = (v: TorchValue): v is HostTensor => typeof v === "object" && v !== null && !Array.isArray(v) && !(v instanceof Map);

/** Reads a file of torch.save: tensors become host tensors, dicts maps. Nothing is executed. Throws: E_IO, E_FORMAT naming the member. */
export function readTorch(source: string | Uint8Array, name = typeof source === "string" ? source : "tensor file"): TorchValue {
  const bytes = typeof source === "string" ? readFile(source) : source;
  if (bytes.length > 1 && bytes[0] === 0x80) throw bad(name, "is a legacy (non-zip) torch file; save it again with torch 1.6 or newer");
  const members = readZip(bytes, name);
  const pickle = [...members.keys()].find((k) => k === "data.pkl" || k.endsWith("/data.pkl"));
  if (pickle === undefined) throw bad(name, "has no data.pkl", [...members.keys()].slice(0, 4));
  const root = pickle.slice(0, -"data.pkl".length);
  const order = members.get(`${root}byteorder`);
  if (order && new TextDecoder().decode(order) !== "little") throw bad(name, "is big-endian");
  return convert(unpickle(members.get(pickle) as Uint8Array, name), members, root, name);
}

function readFile(path: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch (cause) {
    throw new RcmError("E_IO", `cannot read ${path}: ${(cause as Error).message}`, { op: "torch", cause });
  }
}

function convert(v: PickleValue, members: Map<string, Uint8Array>, root: string, name: string): TorchValue {
  if (v === null || typeof v !== "object") return v;
  if (Array.isArray(v)) return v.map((one) => convert(one, members, root, name));
  if (v instanceof Map) {
    const out = new Map<string, TorchValue>();
    for (const [key, value] of v) {
      if (typeof key !== "string") throw bad(name, "has a dict key that is no text", String(key));
      out.set(key, convert(value, members, root, name));
    }
    return out;
  }
  if ("tensor" in v) return gather(v, members, root, name);
  throw bad(name, "holds a value that is no tensor, dict, list or scalar");
}

/** Copies or windows a tensor's elements. Strided tensors are made contiguous. */
function gather({ tensor: storage, offset, shape, strides }: PickleTensor, members: Map<string, Uint8Array>, root: string, name: string): HostTensor {
  const dtype = STORAGES[storage.dtype];
  if (dtype === undefined) throw bad(name, `holds ${storage.dtype} values`, Object.keys(STORAGES));
  const data = members.get(`${root}data/${storage.storage}`);
  if (!data) throw bad(name, `lacks the storage data/${storage.storage}`);
  const each = dtypeBytes(dtype);
  if (storage.count * each > data.length) throw bad(name, `storage data/${storage.storage} is shorter than it says`, data.length);
  const n = numel(shape);
  const last = n === 0 ? 0 : offset + shape.reduce((sum, d, i) => sum + (d - 1) * strides[i], 0) + 1;
  if (!Number.isSafeInteger(n) || !Number.isSafeInteger(last) || last * each > data.length) throw bad(name, `a tensor reaches outside data/${storage.storage}`, { shape, strides, offset });
  if (n * each > data.length && n > 0) throw bad(name, "a tensor repeats its storage", shape);
  const dense = shape.map((_, i) => numel(shape.slice(i + 1)));
  if (shape.every((d, i) => d <= 1 || strides[i] === dense[i])) return { dtype, shape, data: data.subarray(offset * each, (offset + n) * each) };
  const out = new Uint8Array(new ArrayBuffer(n * each));
  const index = shape.map(() => 0);
  for (let i = 0, from = offset; i < n; i++) {
    out.set(data.subarray(from * each, (from + 1) * each), i * each);
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      from += strides[axis];
      if (++index[axis] < shape[axis]) break;
      from -= index[axis] * strides[axis];
      index[axis] = 0;
    }
  }
  return { dtype, shape, data: out };
}

/** Reads a file that holds one tensor. Throws: E_FORMAT when it holds something else. */
export function readTorchTensor(source: string | Uint8Array, name?: string): HostTensor {
  const v = readTorch(source, name);
  if (!isHostTensor(v)) throw bad(name ?? "tensor file", "does not hold one tensor");
  return v;
}

/** Reads a state dict, unwrapping one level such as {"state_dict": ...}. Throws: E_FORMAT when there is none. */
export function readTorchTensors(source: string | Uint8Array, name = typeof source === "string" ? source : "tensor file"): Map<string, HostTensor> {
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

/** Bytes of a .pt file with one tensor or a state dict, as torch.save lays it out. Throws: E_ARG beyond 4 GiB. */
export function writeTorch(value: HostTensor | Iterable<[string, HostTensor]>): Uint8Array {
  const pickler = new TensorPickler();
  const storages: Uint8Array[] = [];
  const put = (t: HostTensor): void => {
    storages.push(t.data);
    pickler.tensor(String(storages.length - 1), NAMES[t.dtype], t.shape);
  };
  if (Symbol.iterator in value) pickler.dict([...value].map(([key, t]) => () => [key, () => put(t)] as [string, () => void]));
  else put(value);
  const text = (s: string): Uint8Array => new TextEncoder().encode(s);
  return writeZip([
    ["archive/data.pkl", pickler.end()],
    ["archive/byteorder", text("little")],
    ...storages.map((data, i): [string, Uint8Array] => [`archive/data/${i}`, data]),
    ["archive/version", text("3\n")],
    ["archive/.data/serialization_id", text("0".repeat(40))],
  ]);
}
