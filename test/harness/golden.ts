import { swapFramesAndChannels } from "../../core/data/latents.ts";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { numel, type HostTensor } from "../../core/dtype.ts";

/** Folder of reference vectors; another set of the same format can be dropped in by RCM_GOLDEN_DIR. */
export const GOLDEN_DIR = process.env.RCM_GOLDEN_DIR ?? join(import.meta.dir, "../golden");

export interface Golden {
  metadata: Record<string, string>;
  /** Tensors by name. Throws when absent. */
  get(name: string): HostTensor;
  has(name: string): boolean;
  names: string[];
  /** Tensors under a prefix, the prefix removed. */
  under(prefix: string): Map<string, HostTensor>;
}

interface Info {
  dtype: string;
  shape: number[];
  data_offsets: [from: number, to: number];
}

/** Reads a file on its own, so that the tests do not lean on the reader they also test. */
export function golden(file: string): Golden {
  const bytes = readFileSync(join(GOLDEN_DIR, file));
  const headerLength = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString("utf8", 8, 8 + headerLength));
  const tensors = new Map<string, HostTensor>();
  for (const [name, info] of Object.entries<Info>(header)) {
    if (name === "__metadata__") continue;
    const [from, to] = info.data_offsets;
    const dtype = info.dtype === "I32" ? "i32" : "f32";
    const data = new Uint8Array(bytes.subarray(8 + headerLength + from, 8 + headerLength + to));
    if (data.length !== numel(info.shape) * 4) throw new Error(`${file}: ${name} has the wrong size`);
    tensors.set(name, { dtype, shape: info.shape, data });
  }
  return {
    metadata: header.__metadata__ ?? {},
    names: [...tensors.keys()],
    has: (name) => tensors.has(name),
    get: (name) => {
      const t = tensors.get(name);
      if (!t) throw new Error(`${file}: no tensor ${name}`);
      return t;
    },
    under: (prefix) =>
      new Map([...tensors].filter(([n]) => n.startsWith(prefix)).map(([n, t]) => [n.slice(prefix.length), t])),
  };
}

/** max |a - b| / max |b|, the error measure of the golden set; NaN as soon as one difference is. */
export function relativeError(got: ArrayLike<number>, want: ArrayLike<number>): number {
  if (got.length !== want.length) throw new Error(`lengths differ: ${got.length} and ${want.length}`);
  let [worst, top] = [0, 0];
  for (let i = 0; i < want.length; i++) {
    const d = Math.abs(got[i] - want[i]);
    if (Number.isNaN(d)) return Number.NaN;
    worst = Math.max(worst, d);
    top = Math.max(top, Math.abs(want[i]));
  }
  return worst / Math.max(top, Number.MIN_VALUE);
}

/** The error of a plain bf16 run that a file states in `bf16_rel_err`, by its path there; null where it states none. */
export function statedBf16Error(g: Golden, ...path: string[]): number | null {
  const found = path.reduce((o, key) => o?.[key], JSON.parse(g.metadata.bf16_rel_err ?? "{}"));
  return typeof found === "number" ? found : null;
}

/** Latents from channels first to frames first. Shapes: [B, C, T, Y, X] -> [B, T, C, Y, X]; others stay. */
export const framesFirst = (t: HostTensor): HostTensor => (t.shape.length === 5 ? swapFramesAndChannels(t) : t);
