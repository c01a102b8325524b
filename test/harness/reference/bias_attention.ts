import { attention } from "./attention.ts";
import type { Plain } from "./plain.ts";

export interface BiasAttention {
  heads: number;
  scale: number;
  /** Keys that count, per sample; null: all. */
  lengths: readonly number[] | null;
}

/** Attention with a bias per head and distance, key - query + L - 1. Shapes: q, k, v [B, L, H*K], bias [H, 2L - 1]. */
export function biasAttention(q: Plain, k: Plain, v: Plain, bias: Plain, { heads, scale, lengths }: BiasAttention): Plain {
  const L = q.shape[1];
  const ofDistance = (b: number, h: number, query: number, key: number): number => {
    if (lengths && key >= lengths[b]) return -Infinity;
    return bias.v[h * (2 * L - 1) + key - query + L - 1];
  };
  return attention(q, k, v, { heads, scale, bias: ofDistance });
}
