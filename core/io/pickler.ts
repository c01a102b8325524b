import type { DType } from "../dtype.ts";
import { STORAGES } from "./torch_read.ts";

/** Writes protocol-2 pickles of the values in torch's files; the counterpart of unpickle.ts. */

/** A value: numbers are whole; `call` and `object` name a class or function by its module. */
export type Pickled = null | boolean | number | string | Pickled[] | PickleNode;
export type PickleNode =
  | { kind: "dict"; ordered: boolean; items: [Pickled, Pickled][] }
  | { kind: "tuple"; items: Pickled[] }
  | { kind: "global"; module: string; name: string }
  | { kind: "call"; fn: Pickled; args: Pickled[] }
  | { kind: "object"; type: Pickled; state: Pickled }
  | { kind: "persistent"; id: Pickled };

export const dict = (items: [Pickled, Pickled][]): PickleNode => ({ kind: "dict", ordered: false, items });
export const orderedDict = (items: [Pickled, Pickled][]): PickleNode => ({ kind: "dict", ordered: true, items });
export const tuple = (...items: Pickled[]): PickleNode => ({ kind: "tuple", items });
export const global = (module: string, name: string): PickleNode => ({ kind: "global", module, name });
export const call = (module: string, name: string, ...args: Pickled[]): PickleNode => ({
  kind: "call",
  fn: global(module, name),
  args,
});
/** An object made without its constructor, and its attributes (or the argument of its __setstate__). */
export const object = (module: string, name: string, state: Pickled): PickleNode => ({
  kind: "object",
  type: global(module, name),
  state,
});

/** The bytes of a pickle of one value. */
export function pickle(value: Pickled): Uint8Array {
  const parts: Uint8Array[] = [Uint8Array.of(0x80, 2)];
  const put = (...bytes: number[]): void => void parts.push(Uint8Array.from(bytes));
  const utf8 = (s: string): Uint8Array => new TextEncoder().encode(s);
  const walk = (v: Pickled): void => {
    if (v === null) put(0x4e);
    else if (typeof v === "boolean") put(v ? 0x88 : 0x89);
    else if (typeof v === "number") put(...integer(v));
    else if (typeof v === "string") {
      const bytes = utf8(v);
      put(0x58, ...u32(bytes.length));
      parts.push(bytes);
    } else if (Array.isArray(v)) {
      put(0x5d, 0x28);
      v.forEach(walk);
      put(0x65);
    } else node(v);
  };
  const node = (v: PickleNode): void => {
    switch (v.kind) {
      case "dict":
        if (v.ordered) walk(call("collections", "OrderedDict"));
        else put(0x7d);
        put(0x28);
        for (const [key, item] of v.items) {
          walk(key);
          walk(item);
        }
        put(0x75);
        break;
      case "tuple":
        put(0x28);
        v.items.forEach(walk);
        put(0x74);
        break;
      case "global":
        parts.push(utf8(`c${v.module}\n${v.name}\n`));
        break;
      case "call":
        walk(v.fn);
        walk(tuple(...v.args));
        put(0x52);
        break;
      case "object":
        walk(v.type);
        put(0x29, 0x81);
        walk(v.state);
        put(0x62);
        break;
      case "persistent":
        walk(v.id);
        put(0x51);
    }
  };
  walk(value);
  put(0x2e);
  const out = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const p of parts) {
    out.set(p, at);
    at += p.length;
  }
  return out;
}

const u32 = (v: number): number[] => [v & 255, (v >>> 8) & 255, (v >>> 16) & 255, (v >>> 24) & 255];

function integer(v: number): number[] {
  if (v < 256) return [0x4b, v];
  if (v < 65536) return [0x4d, v & 255, v >> 8];
  if (v <= 0x7fffffff) return [0x4a, ...u32(v)];
  const bytes: number[] = [];
  for (let rest = BigInt(v); rest > 0n; rest >>= 8n) bytes.push(Number(rest & 255n));
  if (bytes[bytes.length - 1] >= 128) bytes.push(0);
  return [0x8a, bytes.length, ...bytes];
}

const STORAGE_OF = Object.fromEntries(Object.entries(STORAGES).map(([name, dtype]) => [dtype, name])) as Partial<
  Record<DType, string>
>;
/** torch's names of the dtypes that have no storage class. */
const UNTYPED: Partial<Record<DType, string>> = { f8_e4m3: "float8_e4m3fn" };
const NAMES: Record<DType, string> = {
  f32: "float32",
  bf16: "bfloat16",
  f16: "float16",
  f64: "float64",
  i32: "int32",
  i64: "int64",
  u8: "uint8",
  bool: "bool",
  f8_e4m3: "float8_e4m3fn",
};

export const torchDType = (dtype: DType): PickleNode => global("torch", NAMES[dtype]);
export const denseTuple = (shape: readonly number[]): PickleNode =>
  tuple(...shape.map((_, i) => shape.slice(i + 1).reduce((a, b) => a * b, 1)));

/** A dense tensor over a whole storage, as torch.save writes it and torch.load(weights_only=True) reads it. */
export function tensorPickle(storage: string, dtype: DType, shape: readonly number[]): PickleNode {
  const count = shape.reduce((a, b) => a * b, 1);
  const untyped = UNTYPED[dtype];
  const type = untyped ? global("torch.storage", "UntypedStorage") : global("torch", `${STORAGE_OF[dtype]}Storage`);
  const id: PickleNode = { kind: "persistent", id: tuple("storage", type, storage, "cpu", count) };
  const hooks = call("collections", "OrderedDict");
  const args = [id, 0, tuple(...shape), denseTuple(shape), false, hooks];
  return untyped
    ? call("torch._utils", "_rebuild_tensor_v3", ...args, torchDType(dtype))
    : call("torch._utils", "_rebuild_tensor_v2", ...args);
}
