import { RcmError } from "../error.ts";

/** A pickle machine that knows only what torch's tensor files need; it never imports or calls anything. */

/** Result of a whitelisted global or call. */
export type PickleValue = null | boolean | number | string | PickleValue[] | Map<PickleValue, PickleValue> | PickleGlobal | PickleTensor | PickleStorage;
export interface PickleGlobal {
  global: string;
}
export interface PickleStorage {
  storage: string;
  dtype: string;
  count: number;
}
export interface PickleTensor {
  tensor: PickleStorage;
  offset: number;
  shape: number[];
  strides: number[];
}

const REBUILD = "torch._utils _rebuild_tensor_v2";
const PARAMETER = "torch._utils _rebuild_parameter";
const DICT = "collections OrderedDict";
const SIZE = "torch Size";
const STORAGE = /^torch (\w+)Storage$/;
const MAX_DEPTH = 200;
const MAX_ITEMS = 5_000_000;

const isMap = (v: unknown): v is Map<PickleValue, PickleValue> => v instanceof Map;
const isGlobal = (v: unknown): v is PickleGlobal => typeof v === "object" && v !== null && "global" in v;

/** Runs a pickle. Throws: E_FORMAT naming the opcode, global or call that is not allowed, and its byte. */
export function unpickle(bytes: Uint8Array, name: string): PickleValue {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const stack: PickleValue[] = [];
  const marks: number[] = [];
  const memo = new Map<number, PickleValue>();
  let at = 0;
  let items = 0;
  const fail = (message: string): RcmError => new RcmError("E_FORMAT", `${name}: ${message} (pickle byte ${at})`, { op: "torch" });
  const take = (n: number): number => {
    const from = at;
    if (n < 0 || at + n > bytes.length) throw fail("ends in the middle of a value");
    at += n;
    return from;
  };
  const text = (n: number): string => {
    const from = take(n);
    return new TextDecoder().decode(bytes.subarray(from, from + n));
  };
  const line = (): string => {
    const end = bytes.indexOf(10, at);
    if (end < 0) throw fail("ends in the middle of a line");
    const s = text(end - at);
    at++;
    return s;
  };
  const push = (v: PickleValue): void => {
    if (++items > MAX_ITEMS) throw fail("holds too many values");
    stack.push(v);
  };
  const pop = (): PickleValue => {
    if (stack.length <= (marks[marks.length - 1] ?? 0)) throw fail("takes from an empty stack");
    return stack.pop() as PickleValue;
  };
  const toMark = (): PickleValue[] => {
    const from = marks.pop();
    if (from === undefined) throw fail("has no mark");
    return stack.splice(from);
  };
  const top = (): PickleValue => {
    if (stack.length === 0) throw fail("looks at an empty stack");
    return stack[stack.length - 1];
  };
  const global = (module: string, member: string): void => {
    const id = `${module} ${member}`;
    if (![REBUILD, PARAMETER, DICT, SIZE].includes(id) && !STORAGE.test(id)) throw fail(`wants the global ${module}.${member}, which is not part of a tensor file; refused`);
    push({ global: id });
  };
  const setItems = (list: PickleValue[]): void => {
    const into = top();
    if (!isMap(into) || list.length % 2 !== 0) throw fail("sets items of something that is no dict");
    for (let i = 0; i < list.length; i += 2) into.set(list[i], list[i + 1]);
  };
  const append = (list: PickleValue[]): void => {
    const into = top();
    if (!Array.isArray(into)) throw fail("appends to something that is no list");
    for (const v of list) into.push(v);
  };
  const reduce = (): void => {
    const args = pop();
    const fn = pop();
    if (!isGlobal(fn) || !Array.isArray(args)) throw fail("calls something that is no allowed global");
    if (fn.global === DICT && args.length === 0) return push(new Map());
    if (fn.global === SIZE && args.length === 1) return push(args[0]);
    if (fn.global === PARAMETER && args.length >= 1) return push(args[0]);
    if (fn.global !== REBUILD) throw fail(`calls ${fn.global.replace(" ", ".")}; refused`);
    const [tensor, offset, shape, strides] = args;
    const counts = (v: PickleValue): v is number[] => Array.isArray(v) && v.every((d) => Number.isSafeInteger(d) && (d as number) >= 0);
    if (typeof tensor !== "object" || tensor === null || !("storage" in tensor) || !counts([offset]) || !counts(shape) || !counts(strides) || shape.length !== strides.length) {
      throw fail("rebuilds a tensor from values that make none");
    }
    push({ tensor, offset: offset as number, shape, strides });
  };
  const persistent = (): void => {
    const id = pop();
    const kind = Array.isArray(id) ? id[1] : null;
    if (!Array.isArray(id) || id[0] !== "storage" || !isGlobal(kind) || typeof id[2] !== "string" || typeof id[4] !== "number") throw fail("has a storage reference of another form");
    const dtype = STORAGE.exec(kind.global)?.[1];
    if (!dtype) throw fail("has a storage of no known type");
    push({ storage: id[2], dtype, count: id[4] });
  };

  for (;;) {
    const op = bytes[take(1)];
    switch (op) {
      case 0x80: take(1); break; // PROTO
      case 0x95: take(8); break; // FRAME
      case 0x2e: { // STOP
        const v = pop();
        expectDepth(v, fail);
        return v;
      }
      case 0x28: marks.push(stack.length); break; // MARK
      case 0x30: pop(); break; // POP
      case 0x4e: push(null); break;
      case 0x88: push(true); break;
      case 0x89: push(false); break;
      case 0x4b: push(bytes[take(1)]); break; // BININT1
      case 0x4d: push(view.getUint16(take(2), true)); break; // BININT2
      case 0x4a: push(view.getInt32(take(4), true)); break; // BININT
      case 0x8a: { // LONG1
        const n = bytes[take(1)];
        const from = take(n);
        let v = 0n;
        for (let i = n - 1; i >= 0; i--) v = (v << 8n) | BigInt(bytes[from + i]);
        if (n > 0 && bytes[from + n - 1] >= 128) v -= 1n << BigInt(8 * n);
        push(Number(v));
        break;
      }
      case 0x47: push(view.getFloat64(take(8), false)); break; // BINFLOAT
      case 0x58: push(text(view.getUint32(take(4), true))); break; // BINUNICODE
      case 0x8c: push(text(bytes[take(1)])); break; // SHORT_BINUNICODE
      case 0x54: push(text(view.getUint32(take(4), true))); break; // BINSTRING
      case 0x55: push(text(bytes[take(1)])); break; // SHORT_BINSTRING
      case 0x7d: push(new Map()); break; // EMPTY_DICT
      case 0x5d: push([]); break; // EMPTY_LIST
      case 0x29: push([]); break; // EMPTY_TUPLE
      case 0x85: push([pop()]); break;
      case 0x86: { const b = pop(); push([pop(), b]); break; }
      case 0x87: { const c = pop(); const b = pop(); push([pop(), b, c]); break; }
      case 0x74: push(toMark()); break; // TUPLE
      case 0x6c: push(toMark()); break; // LIST
      case 0x61: { const v = pop(); append([v]); break; }
      case 0x65: { const list = toMark(); append(list); break; }
      case 0x73: { const v = pop(); const k = pop(); setItems([k, v]); break; }
      case 0x75: { const list = toMark(); setItems(list); break; }
      case 0x71: memo.set(bytes[take(1)], top()); break; // BINPUT
      case 0x72: memo.set(view.getUint32(take(4), true), top()); break; // LONG_BINPUT
      case 0x94: memo.set(memo.size, top()); break; // MEMOIZE
      case 0x68:
      case 0x6a: { // BINGET, LONG_BINGET
        const key = op === 0x68 ? bytes[take(1)] : view.getUint32(take(4), true);
        if (!memo.has(key)) throw fail(`refers to value ${key}, which was not stored`);
        push(memo.get(key) as PickleValue);
        break;
      }
      case 0x63: { const module = line(); global(module, line()); break; } // GLOBAL
      case 0x93: { // STACK_GLOBAL
        const member = pop();
        const module = pop();
        if (typeof module !== "string" || typeof member !== "string") throw fail("names a global by something that is no text");
        global(module, member);
        break;
      }
      case 0x51: persistent(); break; // BINPERSID
      case 0x52: reduce(); break; // REDUCE
      case 0x62: { // BUILD: torch stores only attributes that carry no data on OrderedDicts
        pop();
        if (!isMap(top())) throw fail("sets the state of something that is no dict; refused");
        break;
      }
      default:
        throw fail(`uses opcode 0x${op.toString(16)}, which a tensor file does not need; refused`);
    }
  }
}

/** Refuses values nested deeper than a tensor file ever is, and cycles. */
function expectDepth(value: PickleValue, fail: (m: string) => RcmError): void {
  const seen = new Set<PickleValue>();
  const walk = (v: PickleValue, depth: number): void => {
    if (depth > MAX_DEPTH || seen.has(v)) throw fail(depth > MAX_DEPTH ? "is nested too deeply" : "contains itself");
    const children = Array.isArray(v) ? v : isMap(v) ? [...v.values()] : null;
    if (!children) return;
    seen.add(v);
    for (const c of children) walk(c, depth + 1);
    seen.delete(v);
  };
  walk(value, 0);
}

/** Writes a state dict (or one tensor) as protocol-2 pickle that torch.load(weights_only=True) reads. */
export class TensorPickler {
  private readonly parts: number[] = [0x80, 2];

  private text(s: string): void {
    const bytes = new TextEncoder().encode(s);
    this.parts.push(0x58, ...u32(bytes.length), ...bytes);
  }
  private int(v: number): void {
    if (v < 256) this.parts.push(0x4b, v);
    else if (v < 65536) this.parts.push(0x4d, v & 255, v >> 8);
    else if (v <= 0x7fffffff) this.parts.push(0x4a, ...u32(v));
    else {
      const bytes: number[] = [];
      for (let rest = BigInt(v); rest > 0n; rest >>= 8n) bytes.push(Number(rest & 255n));
      if (bytes[bytes.length - 1] >= 128) bytes.push(0);
      this.parts.push(0x8a, bytes.length, ...bytes);
    }
  }
  private tuple(values: readonly number[]): void {
    this.parts.push(0x28);
    for (const v of values) this.int(v);
    this.parts.push(0x74);
  }
  private line(module: string, member: string): void {
    this.parts.push(0x63, ...new TextEncoder().encode(`${module}\n${member}\n`));
  }
  private emptyDict(): void {
    this.line("collections", "OrderedDict");
    this.parts.push(0x29, 0x52);
  }

  tensor(storage: string, dtype: string, shape: readonly number[]): void {
    const strides = shape.map((_, i) => shape.slice(i + 1).reduce((a, b) => a * b, 1));
    this.line("torch._utils", "_rebuild_tensor_v2");
    this.parts.push(0x28, 0x28);
    this.text("storage");
    this.line("torch", `${dtype}Storage`);
    this.text(storage);
    this.text("cpu");
    this.int(shape.reduce((a, b) => a * b, 1));
    this.parts.push(0x74, 0x51);
    this.int(0);
    this.tuple(shape);
    this.tuple(strides);
    this.parts.push(0x89);
    this.emptyDict();
    this.parts.push(0x74, 0x52);
  }

  dict(entries: (() => [string, () => void])[]): void {
    this.emptyDict();
    this.parts.push(0x28);
    for (const entry of entries) {
      const [key, value] = entry();
      this.text(key);
      value();
    }
    this.parts.push(0x75);
  }

  end(): Uint8Array {
    return Uint8Array.from([...this.parts, 0x2e]);
  }
}

const u32 = (v: number): number[] => [v & 255, (v >>> 8) & 255, (v >>> 16) & 255, (v >>> 24) & 255];
