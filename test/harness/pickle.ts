/**
 * Writes pickles byte by byte, so that readers are tested against what Python writes and not against their own writer.
 */
export type Bytes = number[];

export const utf8 = (s: string): Bytes => [...new TextEncoder().encode(s)];
export const le = (v: number | bigint, bytes: number): Bytes =>
  Array.from({ length: bytes }, (_, i) => Number((BigInt(v) >> BigInt(8 * i)) & 255n));

export const NONE: Bytes = [0x4e];
export const STOP: Bytes = [0x2e];
export const proto = (n: number): Bytes => [0x80, n];
export const int = (v: number): Bytes =>
  v < 256 ? [0x4b, v] : v < 65536 ? [0x4d, ...le(v, 2)] : v < 2 ** 31 ? [0x4a, ...le(v, 4)] : [0x8a, 8, ...le(v, 8)];
export const str = (s: string): Bytes => [0x58, ...le(new TextEncoder().encode(s).length, 4), ...utf8(s)];
export const bool = (v: boolean): Bytes => [v ? 0x88 : 0x89];
export const tuple = (...items: Bytes[]): Bytes => [0x28, ...items.flat(), 0x74];
export const list = (...items: Bytes[]): Bytes => [0x5d, 0x28, ...items.flat(), 0x65];
export const dict = (...pairs: [Bytes, Bytes][]): Bytes => [0x7d, 0x28, ...pairs.flat(2), 0x75];
export const global = (module: string, name: string): Bytes => [0x63, ...utf8(`${module}\n${name}\n`)];
/** The name of protocol 4, with the memo entries that Python makes. */
export const stackGlobal = (module: string, name: string): Bytes => [
  0x8c, utf8(module).length, ...utf8(module), 0x94, 0x8c, utf8(name).length, ...utf8(name), 0x94, 0x93, 0x94,
];
export const call = (fn: Bytes, ...args: Bytes[]): Bytes => [...fn, ...tuple(...args), 0x52];
/** An instance as Python's protocols 2 and above store it: new object, then its state. */
export const object = (type: Bytes, state: Bytes): Bytes => [...type, 0x29, 0x81, ...state, 0x62];
export const counts = (values: readonly number[]): Bytes => tuple(...values.map(int));
export const size = (values: readonly number[]): Bytes => call(global("torch", "Size"), counts(values));

/** A tensor as torch's own reducer writes it; legacy references have a sixth entry. */
export function tensor(o: {
  storage: string;
  type: string;
  count: number;
  offset: number;
  shape: readonly number[];
  strides: readonly number[];
  legacy?: boolean;
}): Bytes {
  const id = tuple(
    str("storage"), global("torch", `${o.type}Storage`), str(o.storage), str("cpu"), int(o.count),
    ...(o.legacy ? [NONE] : []),
  );
  return call(
    global("torch._utils", "_rebuild_tensor_v2"), [...id, 0x51], int(o.offset), counts(o.shape), counts(o.strides),
    bool(false), call(global("collections", "OrderedDict")),
  );
}

export const file = (...parts: Bytes[]): Uint8Array => {
  const out = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const p of parts) {
    out.set(p, at);
    at += p.length;
  }
  return out;
};
