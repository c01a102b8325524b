import { RcmError } from "../../error.ts";

/** Hyper-parameters of a umT5 encoder (T5 v1.1 with a relative bias table in every layer). */
export interface Umt5Config {
  vocab: number;
  /** Model width D, width of all heads together, hidden width F of the gated feed-forward network. */
  dim: number;
  dimAttn: number;
  ffnDim: number;
  heads: number;
  layers: number;
  /** Rows of each relative bias table, and the distance beyond which all keys share one row. */
  buckets: number;
  maxDistance: number;
  eps: number;
}

const UMT5 = { buckets: 32, maxDistance: 128, eps: 1e-6 } as const;

/** The encoder published with Wan2.1, and a tiny one for tests. */
export const UMT5_PRESETS = {
  "umt5-xxl": { ...UMT5, vocab: 256384, dim: 4096, dimAttn: 4096, ffnDim: 10240, heads: 64, layers: 24 },
  "umt5-tiny": { ...UMT5, vocab: 384, dim: 32, dimAttn: 32, ffnDim: 48, heads: 4, layers: 2 },
} as const satisfies Record<string, Umt5Config>;

export type Umt5Preset = keyof typeof UMT5_PRESETS;

/**
 * Bias table row for a key `distance` positions after its query. Each direction has half of the rows: the first half of
 * these hold one distance each, the rest grow logarithmically up to `maxDistance`. The logarithm is in f32, as in the
 * public code.
 * Source: T5 (arXiv 1910.10683), section 2.1.
 */
export function relativeBucket(
  distance: number,
  { buckets, maxDistance }: Pick<Umt5Config, "buckets" | "maxDistance">,
): number {
  const half = buckets / 2;
  const first = distance > 0 ? half : 0;
  const far = Math.abs(distance);
  const exact = half / 2;
  if (far < exact) return first + far;
  const f = Math.fround;
  const share = f(f(Math.log(f(far / exact))) / f(Math.log(maxDistance / exact)));
  return first + Math.min(half - 1, exact + Math.trunc(f(share * (half - exact))));
}

/** Bias table rows for all distances between L tokens. Shapes: [2L-1], element i for key - query = i - (L - 1). */
export const relativeBuckets = (L: number, c: Pick<Umt5Config, "buckets" | "maxDistance">): Int32Array =>
  Int32Array.from({ length: 2 * L - 1 }, (_, i) => relativeBucket(i - (L - 1), c));

/** Infers the configuration from a checkpoint's shapes, under Wan's names. Throws: E_FORMAT when it is no umT5. */
export function umt5ConfigOf(shapes: ReadonlyMap<string, readonly number[]>, what: string): Umt5Config {
  const shape = (name: string): readonly number[] => {
    const found = shapes.get(name);
    if (found?.length !== 2) {
      throw new RcmError("E_FORMAT", `${what}: no umT5 encoder: no matrix ${name}`, { op: "umt5", got: found });
    }
    return found;
  };
  const [vocab, dim] = shape("token_embedding.weight");
  const [dimAttn] = shape("blocks.0.attn.q.weight");
  const [ffnDim] = shape("blocks.0.ffn.fc1.weight");
  const [buckets, heads] = shape("blocks.0.pos_embedding.embedding.weight");
  let layers = 1;
  while (shapes.has(`blocks.${layers}.norm1.weight`)) layers++;
  if (dimAttn % heads !== 0 || buckets % 4 !== 0) {
    throw new RcmError("E_FORMAT", `${what}: no umT5 encoder`, {
      op: "umt5",
      want: "heads that divide the width, buckets in fours",
      got: { dimAttn, heads, buckets },
    });
  }
  return { ...UMT5, vocab, dim, dimAttn, ffnDim, heads, layers, buckets };
}
