import type { Rng } from "../../core/rng.ts";
import * as p from "../harness/pickle.ts";

/**
 * Mutations: of any bytes, and of structures that are changed and then put together again, so that checksums and
 * lengths still fit.
 */

export type Mutate<T> = (rng: Rng, value: T) => T;

export const pick = <T>(rng: Rng, list: readonly T[]): T => list[rng.below(list.length)];

/** Numbers at the edges of what a field holds. */
export const EDGES = [
  0, 1, 2, 7, 8, 63, 64, 127, 128, 255, 256, 4095, 65535, 65536, 2 ** 24, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32,
  2 ** 40, 2 ** 53 - 1,
];

/** One to four small damages: bits, bytes, numbers at the edges, spans cut, doubled or moved, ends cut off. */
export function bytes(rng: Rng, input: Uint8Array): Uint8Array {
  let b: Uint8Array = input.slice();
  for (let k = rng.below(4); k >= 0 && b.length > 0; k--) {
    const at = rng.below(b.length);
    const n = 1 + rng.below(Math.min(64, b.length - at));
    switch (rng.below(9)) {
      case 0:
        b[at] ^= 1 << rng.below(8);
        break;
      case 1:
        b[at] = rng.below(256);
        break;
      case 2:
        b[at] = pick(rng, [0, 1, 127, 128, 255]);
        break;
      case 3: {
        const width = pick(rng, [2, 4, 8]);
        b.set(p.le(BigInt(pick(rng, EDGES)), width).slice(0, b.length - at), at);
        break;
      }
      case 4:
        b = b.slice(0, at);
        break;
      case 5:
        b = new Uint8Array(Buffer.concat([b.subarray(0, at), b.subarray(at + n)]));
        break;
      case 6:
        b = new Uint8Array(Buffer.concat([b.subarray(0, at + n), b.subarray(at)]));
        break;
      case 7:
        b.fill(pick(rng, [0, 255, 0x28, 0x5d]), at, at + n);
        break;
      default:
        b.copyWithin(rng.below(b.length), at, at + n);
    }
  }
  return b;
}

const ODD: unknown[] = [
  null, true, -1, 0, 1, 1.5, 1e300, 2 ** 53, 2 ** 53 - 1, 2 ** 31, "", "x", "../x", "__proto__", "constructor", [],
  {}, [[]], { a: 1 }, "F32", "BF16", "é\u0000", [0], [-1], [2 ** 40, 2 ** 40], "9".repeat(400),
];

/**
 * Changes one to three places of a JSON value: another value, a key removed, renamed or added, an element doubled, deep
 * nesting.
 */
export function json(rng: Rng, value: unknown): unknown {
  const root: { root: unknown } = { root: structuredClone(value) };
  for (let k = rng.below(3); k >= 0; k--) {
    const places: [Record<string, unknown> | unknown[], string][] = [];
    const walk = (v: unknown, depth: number): void => {
      if (typeof v !== "object" || v === null || depth > 20) return;
      for (const key of Object.keys(v)) {
        places.push([v as Record<string, unknown>, key]);
        walk((v as Record<string, unknown>)[key], depth + 1);
      }
    };
    walk(root, 0);
    const [into, key] = pick(rng, places) as [Record<string, unknown>, string];
    switch (rng.below(6)) {
      case 0:
        delete into[key];
        break;
      case 1: {
        const value = structuredClone((into as Record<string, unknown>)[key]);
        if (Array.isArray(into)) into.splice(Number(key), 0, value);
        // Defined, not assigned: "__proto__" is to be a key of the text.
        else
          Object.defineProperty(into, String(pick(rng, ["x", "__proto__", "__metadata__", `${key}.`])), {
            value, enumerable: true, writable: true, configurable: true,
          });
        break;
      }
      case 2:
        into[key] = Array.from({ length: pick(rng, [3, 50, 2000]) }).reduce<unknown>((inner) => [inner], 0);
        break;
      case 3:
        into[key] =
          typeof into[key] === "number" ? pick(rng, EDGES) * pick(rng, [1, 1, -1]) : structuredClone(pick(rng, ODD));
        break;
      case 4: {
        const [from, name] = pick(rng, places) as [Record<string, unknown>, string];
        into[key] = structuredClone(from[name]);
        break;
      }
      default:
        into[key] = structuredClone(pick(rng, ODD));
    }
    if (root.root === undefined) root.root = null;
  }
  return root.root;
}

/** The bytes of an opcode and its argument. */
type PickleOp = number[];

const FIXED: Record<number, number> = {
  0x80: 1, 0x95: 8, 0x4b: 1, 0x4d: 2, 0x4a: 4, 0x47: 8, 0x71: 1, 0x72: 4, 0x68: 1, 0x6a: 4,
};

/** Cuts a pickle into opcodes. */
function pickleOps(b: Uint8Array): PickleOp[] {
  const out: PickleOp[] = [];
  for (let at = 0; at < b.length; ) {
    const op = b[at];
    let end = at + 1 + (FIXED[op] ?? 0);
    if (op === 0x8a || op === 0x8c || op === 0x55) end = at + 2 + b[at + 1];
    if (op === 0x58 || op === 0x54) end = at + 5 + new DataView(b.buffer, b.byteOffset + at + 1, 4).getUint32(0, true);
    if (op === 0x63) end = b.indexOf(10, b.indexOf(10, at) + 1) + 1;
    out.push([...b.subarray(at, end)]);
    at = end;
  }
  return out;
}

const WORDS = [
  "storage", "0", "1", "9", "cpu", "torch", "FloatStorage", "float32", "fqn", "offset", "sizes", "offsets", "size",
  "chunks", "properties", "relative_path", "length", "x", "__proto__", "",
];
const GLOBALS = [
  "torch FloatStorage", "torch.storage UntypedStorage", "torch._utils _rebuild_tensor_v2",
  "torch._utils _rebuild_tensor_v3", "torch Size", "torch float32", "torch bfloat16", "collections OrderedDict",
  "os system", "builtins getattr", "builtins eval", "pathlib PosixPath",
  "torch.distributed.checkpoint.metadata Metadata", "torch.distributed.checkpoint.metadata MetadataIndex",
  "torch.distributed.checkpoint.filesystem _StorageInfo", "torch.serialization _get_layout",
];
const BARE = [
  0x28, 0x30, 0x4e, 0x88, 0x7d, 0x5d, 0x29, 0x85, 0x86, 0x87, 0x74, 0x6c, 0x61, 0x65, 0x73, 0x75, 0x94, 0x93, 0x51,
  0x52, 0x62, 0x81, 0x2e,
];

/** A small pickle program of one to four changed opcodes; a few repeat one many times. */
export function pickle(rng: Rng, input: Uint8Array): Uint8Array {
  const ops = pickleOps(input);
  const fresh = (): PickleOp => {
    const kind = rng.below(6);
    if (kind === 0) return p.int(pick(rng, EDGES));
    if (kind === 1) return p.str(pick(rng, WORDS));
    if (kind === 2) return p.global(...(pick(rng, GLOBALS).split(" ") as [string, string]));
    if (kind === 3) return [0x68, rng.below(40)];
    if (kind === 4) return [0x71, rng.below(40)];
    return [pick(rng, BARE)];
  };
  for (let k = rng.below(4); k >= 0; k--) {
    const at = rng.below(ops.length);
    switch (rng.below(8)) {
      case 0:
        ops.splice(at, 1);
        break;
      case 1:
        ops.splice(at, 0, fresh());
        break;
      case 2:
        ops[at] = fresh();
        break;
      case 3:
        ops.splice(at, 0, ops[rng.below(ops.length)]);
        break;
      case 4: {
        const other = rng.below(ops.length);
        [ops[at], ops[other]] = [ops[other], ops[at]];
        break;
      }
      case 5: {
        const numbers = ops.flatMap((op, i) => ([0x4b, 0x4d, 0x4a, 0x8a].includes(op[0]) ? [i] : []));
        if (numbers.length > 0) ops[pick(rng, numbers)] = p.int(pick(rng, EDGES));
        break;
      }
      case 6: {
        const texts = ops.flatMap((op, i) => ([0x58, 0x8c].includes(op[0]) ? [i] : []));
        if (texts.length > 0) ops[pick(rng, texts)] = p.str(pick(rng, WORDS));
        break;
      }
      default:
        if (rng.below(8) === 0)
          ops.splice(
            at,
            0,
            ...new Array(pick(rng, [20, 300, 3000])).fill(
              pick(rng, [[0x5d], [0x28], [0x85], [0x94], [0x61], [0x7d], [0x86]]),
            ),
          );
    }
    if (ops.length === 0) ops.push(fresh());
  }
  return p.file(...ops);
}

const YAML = [
  "&a ", "*a", "!!binary ", "!!set ", "<<: *a\n", "- ", "? ", ": ", "{", "}", "[", "]", "|\n", "\t", "#", "'", '"',
  "${X}", "${X:-", "~", "1e999", ".nan", "0x", "null", "---\n", "...\n", "%YAML 1.1\n", "\u0000", "\u2028",
  "extends: recipe.yaml\n", "__proto__: 1\n", "constructor: {}\n",
];

/** Text damage for YAML: tokens put in, lines doubled, moved, removed, indented; alias bombs and deep nesting. */
export function yaml(rng: Rng, input: string): string {
  let lines = input.split("\n");
  for (let k = rng.below(4); k >= 0 && lines.length > 0; k--) {
    const at = rng.below(lines.length);
    const line = lines[at];
    const column = rng.below(line.length + 1);
    switch (rng.below(9)) {
      case 0:
        lines.splice(at, 1);
        break;
      case 1:
        lines.splice(at, 0, lines[rng.below(lines.length)]);
        break;
      case 2:
        lines[at] = `${" ".repeat(rng.below(5))}${line.trimStart()}`;
        break;
      case 3:
      case 4:
        lines[at] = line.slice(0, column) + pick(rng, YAML) + line.slice(column);
        break;
      case 5:
        lines[at] = line.replace(
          /: .*/,
          `: ${pick(rng, [String(pick(rng, EDGES)), "-1", "[]", "{}", "null", "yes", "'x'", "[1, 2]", "1e400"])}`,
        );
        break;
      case 6:
        lines[at] = line.replace(
          /^(\s*)\w+/,
          (_, space: string) => space + pick(rng, ["x", "kind", "lr", "steps", "extends", "__proto__"]),
        );
        break;
      case 7:
        lines = lines.slice(0, at);
        break;
      default:
        if (rng.below(6) === 0)
          lines.push(
            pick(rng, [
              `${"[".repeat(pick(rng, [100, 3000]))}`,
              "b0: &b0 [x, x]\n" +
                Array.from({ length: 20 }, (_, i) => `b${i + 1}: &b${i + 1} [*b${i}, *b${i}, *b${i}]`).join("\n"),
              "a".repeat(20000),
              `${"- ".repeat(1000)}x`,
            ]),
          );
    }
  }
  return lines.join("\n");
}
