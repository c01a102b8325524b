import { RcmError } from "../error.ts";
import {
  DICT,
  DTYPE,
  GETATTR,
  KNOWN,
  METADATA_CALLS,
  METADATA_CLASSES,
  PARAMETER,
  PATHS,
  SIZE,
  STORAGE,
  TENSOR_CALLS,
  type PickleKind,
} from "./pickle_globals.ts";
import {
  isCount,
  isCounts,
  isGlobal,
  isMap,
  isObject,
  type PickleObject,
  type PickleStorage,
  type PickleTensor,
  type PickleValue,
} from "./pickle_values.ts";
import { MAX_HEADER, memorySource, type Source } from "./source.ts";

/** A pickle machine restricted to the opcodes and globals of torch's files; it never imports or calls anything. */

const MAX_DEPTH = 200;
const MAX_ITEMS = 5_000_000;

/** Runs a pickle. Throws: E_FORMAT naming the opcode, global or call that is not allowed, and its byte. */
export const unpickle = (bytes: Uint8Array, name: string, kind: PickleKind = "tensors"): PickleValue =>
  unpickleFrom(memorySource(bytes, name), kind).value;

export interface Unpickled {
  value: PickleValue;
  /** Byte after the pickle. */
  end: number;
  /** Every storage it refers to. */
  storages: ReadonlyMap<string, PickleStorage>;
}

/** Runs the pickle at the head of a source, reading as little as it needs. Throws: E_IO, E_FORMAT. */
export function unpickleFrom(source: Source, kind: PickleKind = "tensors"): Unpickled {
  const machine = new Machine(source, kind);
  const value = machine.run();
  return { value, end: machine.at, storages: machine.storages };
}

class Machine {
  at = 0;
  readonly storages = new Map<string, PickleStorage>();
  private bytes: Uint8Array;
  private view: DataView;
  private readonly stack: PickleValue[] = [];
  private readonly marks: number[] = [];
  private readonly memo = new Map<number, PickleValue>();
  private items = 0;

  constructor(
    private readonly source: Source,
    private readonly kind: PickleKind,
  ) {
    this.bytes = source.read(0, Math.min(source.size, 65536));
    this.view = new DataView(this.bytes.buffer, this.bytes.byteOffset, this.bytes.byteLength);
  }

  private fail(message: string): RcmError {
    return new RcmError("E_FORMAT", `${this.source.name}: ${message} (pickle byte ${this.at})`, { op: "torch" });
  }

  /** Reads ahead so that bytes up to `end` are available; false beyond the source. */
  private reach(end: number): boolean {
    if (end <= this.bytes.length) return true;
    if (end > this.source.size || end > MAX_HEADER) return false;
    this.bytes = this.source.read(0, Math.min(this.source.size, MAX_HEADER, Math.max(end, 4 * this.bytes.length)));
    this.view = new DataView(this.bytes.buffer, this.bytes.byteOffset, this.bytes.byteLength);
    return true;
  }
  private take(n: number): number {
    const from = this.at;
    if (!this.reach(from + n)) throw this.fail("ends in the middle of a value");
    this.at += n;
    return from;
  }
  private byte(): number {
    const from = this.take(1);
    return this.bytes[from];
  }
  private u32(): number {
    const from = this.take(4);
    return this.view.getUint32(from, true);
  }
  private text(n: number): string {
    const from = this.take(n);
    return new TextDecoder().decode(this.bytes.subarray(from, from + n));
  }
  private line(): string {
    let end = this.bytes.indexOf(10, this.at);
    while (end < 0 && this.reach(this.bytes.length + 1)) end = this.bytes.indexOf(10, this.at);
    if (end < 0) throw this.fail("ends in the middle of a line");
    const s = this.text(end - this.at);
    this.at++;
    return s;
  }
  private push(v: PickleValue): void {
    if (++this.items > MAX_ITEMS) throw this.fail("holds too many values");
    this.stack.push(v);
  }
  private pop(): PickleValue {
    if (this.stack.length <= (this.marks[this.marks.length - 1] ?? 0)) throw this.fail("takes from an empty stack");
    return this.stack.pop() as PickleValue;
  }
  private toMark(): PickleValue[] {
    const from = this.marks.pop();
    if (from === undefined) throw this.fail("has no mark");
    return this.stack.splice(from);
  }
  private top(): PickleValue {
    if (this.stack.length === 0) throw this.fail("looks at an empty stack");
    return this.stack[this.stack.length - 1];
  }

  private global(module: string, member: string): void {
    const id = `${module} ${member}`;
    const metadata =
      this.kind === "metadata" &&
      (METADATA_CLASSES.test(id) || METADATA_CALLS.test(id) || PATHS.test(id) || id === GETATTR);
    if (!KNOWN.has(id) && !STORAGE.test(id) && !DTYPE.test(id) && !metadata) {
      const file = this.kind === "metadata" ? "checkpoint's metadata" : "tensor file";
      throw this.fail(`wants the global ${module}.${member}, which is not part of a ${file}; refused`);
    }
    this.push({ global: id });
  }
  private setItems(list: PickleValue[]): void {
    const into = this.top();
    if (!isMap(into) || list.length % 2 !== 0) throw this.fail("sets items of something that is no dict");
    for (let i = 0; i < list.length; i += 2) into.set(list[i], list[i + 1]);
  }
  private append(list: PickleValue[]): void {
    const into = this.top();
    if (!Array.isArray(into)) throw this.fail("appends to something that is no list");
    for (const v of list) into.push(v);
  }

  private reduce(): PickleValue {
    const args = this.pop();
    const fn = this.pop();
    if (!isGlobal(fn) || !Array.isArray(args)) throw this.fail("calls something that is no allowed global");
    const id = fn.global;
    if (id === DICT && args.length === 0) return new Map();
    if (id === SIZE && args.length === 1) return args[0];
    if (id === PARAMETER && args.length >= 1) return args[0];
    if (TENSOR_CALLS.includes(id)) return this.tensor(args);
    if (this.kind === "metadata") {
      if (METADATA_CALLS.test(id) && args.length === 1) return args[0];
      if (id === GETATTR && args.length === 2 && isGlobal(args[0])) return args[1];
      if (PATHS.test(id) && args.every((a) => typeof a === "string")) return args.join("/");
    }
    throw this.fail(`calls ${id.replace(" ", ".")}; refused`);
  }
  private tensor([storage, offset, shape, strides, , , dtype]: PickleValue[]): PickleTensor {
    const whole = typeof storage === "object" && storage !== null && "storage" in storage;
    if (!whole || !isCount(offset) || !isCounts(shape) || !isCounts(strides) || shape.length !== strides.length)
      throw this.fail("rebuilds a tensor from values that make none");
    return {
      tensor: storage,
      offset,
      shape,
      strides,
      dtype: isGlobal(dtype) ? dtype.global.slice("torch ".length) : null,
    };
  }
  private newObject(): PickleObject {
    const args = this.pop();
    const type = this.pop();
    if (this.kind !== "metadata" || !isGlobal(type) || !METADATA_CLASSES.test(type.global) || !Array.isArray(args))
      throw this.fail("makes an object that is not part of a checkpoint; refused");
    return { class: type.global.split(" ")[1], args, state: null };
  }
  /** Attributes of OrderedDicts carry no data; objects of metadata keep their state. */
  private build(): void {
    const state = this.pop();
    const into = this.top();
    if (isObject(into)) into.state = state;
    else if (!isMap(into)) throw this.fail("sets the state of something that is no dict; refused");
  }
  private persistent(): PickleStorage {
    const id = this.pop();
    const parts = Array.isArray(id) ? id : [];
    const [tag, type, storage, , count, view] = parts;
    if (tag !== "storage" || !isGlobal(type) || typeof storage !== "string" || !isCount(count))
      throw this.fail("has a storage reference of another form");
    const dtype = STORAGE.exec(type.global)?.[1];
    if (!dtype) throw this.fail("has a storage of no known type");
    const [, start, length] = Array.isArray(view) ? view : [null, 0, count];
    if (!isCount(start) || !isCount(length) || start + length > count)
      throw this.fail("has a view of a storage of another form");
    const known = this.storages.get(storage);
    if (known && (known.dtype !== dtype || known.count !== count))
      throw this.fail(`describes storage ${storage} in two ways`);
    const found = { storage, dtype, count, start };
    this.storages.set(storage, known ?? found);
    return found;
  }
  private long(n: number): number {
    const from = this.take(n);
    let v = 0n;
    for (let i = n - 1; i >= 0; i--) v = (v << 8n) | BigInt(this.bytes[from + i]);
    if (n > 0 && this.bytes[from + n - 1] >= 128) v -= 1n << BigInt(8 * n);
    return Number(v);
  }

  run(): PickleValue {
    for (;;) {
      const op = this.byte();
      switch (op) {
        case 0x80: // PROTO
          this.take(1);
          break;
        case 0x95: // FRAME
          this.take(8);
          break;
        case 0x2e: { // STOP
          const v = this.pop();
          this.expectTree(v);
          return v;
        }
        case 0x28: // MARK
          this.marks.push(this.stack.length);
          if (this.marks.length > MAX_ITEMS) throw this.fail("holds too many marks");
          break;
        case 0x30: // POP
          this.pop();
          break;
        case 0x4e:
          this.push(null);
          break;
        case 0x88:
          this.push(true);
          break;
        case 0x89:
          this.push(false);
          break;
        case 0x4b: // BININT1
          this.push(this.byte());
          break;
        case 0x4d: { // BININT2
          const from = this.take(2);
          this.push(this.view.getUint16(from, true));
          break;
        }
        case 0x4a: { // BININT
          const from = this.take(4);
          this.push(this.view.getInt32(from, true));
          break;
        }
        case 0x8a: // LONG1
          this.push(this.long(this.byte()));
          break;
        case 0x47: { // BINFLOAT
          const from = this.take(8);
          this.push(this.view.getFloat64(from, false));
          break;
        }
        case 0x58: // BINUNICODE
          this.push(this.text(this.u32()));
          break;
        case 0x8c: // SHORT_BINUNICODE
          this.push(this.text(this.byte()));
          break;
        case 0x54: // BINSTRING
          this.push(this.text(this.u32()));
          break;
        case 0x55: // SHORT_BINSTRING
          this.push(this.text(this.byte()));
          break;
        case 0x7d: // EMPTY_DICT
          this.push(new Map());
          break;
        case 0x5d: // EMPTY_LIST
          this.push([]);
          break;
        case 0x29: // EMPTY_TUPLE
          this.push([]);
          break;
        case 0x85:
          this.push([this.pop()]);
          break;
        case 0x86: {
          const b = this.pop();
          this.push([this.pop(), b]);
          break;
        }
        case 0x87: {
          const c = this.pop();
          const b = this.pop();
          this.push([this.pop(), b, c]);
          break;
        }
        case 0x74: // TUPLE
          this.push(this.toMark());
          break;
        case 0x6c: // LIST
          this.push(this.toMark());
          break;
        case 0x61:
          this.append([this.pop()]);
          break;
        case 0x65:
          this.append(this.toMark());
          break;
        case 0x73: {
          const v = this.pop();
          this.setItems([this.pop(), v]);
          break;
        }
        case 0x75:
          this.setItems(this.toMark());
          break;
        case 0x71: // BINPUT
          this.memo.set(this.byte(), this.top());
          break;
        case 0x72: // LONG_BINPUT
          this.memo.set(this.u32(), this.top());
          break;
        case 0x94: // MEMOIZE
          this.memo.set(this.memo.size, this.top());
          break;
        case 0x68: // BINGET
          this.recall(this.byte());
          break;
        case 0x6a: // LONG_BINGET
          this.recall(this.u32());
          break;
        case 0x63: { // GLOBAL
          const module = this.line();
          this.global(module, this.line());
          break;
        }
        case 0x93: { // STACK_GLOBAL
          const member = this.pop();
          const module = this.pop();
          if (typeof module !== "string" || typeof member !== "string")
            throw this.fail("names a global by something that is no text");
          this.global(module, member);
          break;
        }
        case 0x51: // BINPERSID
          this.push(this.persistent());
          break;
        case 0x52: // REDUCE
          this.push(this.reduce());
          break;
        case 0x81: // NEWOBJ
          this.push(this.newObject());
          break;
        case 0x62: // BUILD
          this.build();
          break;
        default:
          throw this.fail(`uses opcode 0x${op.toString(16)}, which a tensor file does not need; refused`);
      }
    }
  }

  private recall(key: number): void {
    const v = this.memo.get(key);
    if (v === undefined) throw this.fail(`refers to value ${key}, which was not stored`);
    this.push(v);
  }

  /** Refuses excessive nesting, cycles, and trees that shared parts expand to a huge size. */
  private expectTree(value: PickleValue): void {
    const open = new Set<PickleValue>();
    let visits = 0;
    const walk = (v: PickleValue, depth: number): void => {
      if (++visits > MAX_ITEMS) throw this.fail("repeats its parts too often");
      if (depth > MAX_DEPTH || open.has(v))
        throw this.fail(depth > MAX_DEPTH ? "is nested too deeply" : "contains itself");
      if (typeof v !== "object" || v === null) return;
      const children = Array.isArray(v)
        ? [v]
        : isMap(v)
          ? [[...v.keys()], [...v.values()]]
          : isObject(v)
            ? [v.args, [v.state]]
            : [];
      if (children.length === 0) return;
      open.add(v);
      for (const list of children) for (const c of list) walk(c, depth + 1);
      open.delete(v);
    };
    walk(value, 0);
  }
}
