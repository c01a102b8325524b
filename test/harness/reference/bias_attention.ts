import { attention } from "./attention.ts";
import type { Plain } from "./plain.ts";

export interface BiasAttention {
  heads: number;
  scale: number;
  /** Keys that count, per sample; null: all. */
  lengths: readonly number[] | null;
  /** Rounds a query's probabilities as a run would that stores them. */
  stored?: (probabilities: Plain) => Plain;
}

/** Attention with a bias per head and distance, key - query + L - 1. Shapes: q, k, v [B, L, H*K], bias [H, 2L - 1]. */
export function biasAttention([q, k, v]: readonly Plain[], bias: Plain, p: BiasAttention): Plain {
  const L = q.shape[1];
  const ofDistance = (b: number, h: number, query: number, key: number): number => {
    if (p.lengths && key >= p.lengths[b]) return -Infinity;
    return bias.v[h * (2 * L - 1) + key - query + L - 1];
  };
  return attention(q, k, v, { ...p, bias: ofDistance });
}
