import { plain, type Plain } from "./plain.ts";

export interface Attention {
  heads: number;
  /** Factor of the scores. */
  scale: number;
  /** Added to a score; -Infinity removes the key. */
  bias?: (b: number, h: number, query: number, key: number) => number;
  /** Rounds a query's probabilities as a run would that stores them. */
  stored?: (probabilities: Plain) => Plain;
}

/**
 * softmax(scale q k^T + bias) v for every head.
 * Shapes: q [B, Lq, H*K], k [B, Lk, H*K], v [B, Lk, H*Kv] -> [B, Lq, H*Kv].
 */
export function attention(q: Plain, k: Plain, v: Plain, p: Attention): Plain {
  const { heads: H, scale, bias = () => 0, stored = (x: Plain) => x } = p;
  const [B, Lq, D] = q.shape;
  const [, Lk, Dv] = v.shape;
  const [K, Kv] = [D / H, Dv / H];
  const y = plain([B, Lq, Dv]);
  const scores = new Float64Array(Lk);
  for (let b = 0; b < B; b++) {
    for (let h = 0; h < H; h++) {
      for (let i = 0; i < Lq; i++) {
        for (let j = 0; j < Lk; j++) {
          let sum = 0;
          for (let c = 0; c < K; c++) sum += q.v[(b * Lq + i) * D + h * K + c] * k.v[(b * Lk + j) * D + h * K + c];
          scores[j] = scale * sum + bias(b, h, i, j);
        }
        const most = Math.max(...scores);
        // A query without keys attends to nothing.
        if (most === -Infinity) continue;
        const weights = scores.map((s) => Math.exp(s - most));
        const total = weights.reduce((sum, w) => sum + w, 0);
        const probabilities = stored(plain([Lk], weights.map((w) => w / total))).v;
        for (let j = 0; j < Lk; j++) {
          for (let c = 0; c < Kv; c++) {
            y.v[(b * Lq + i) * Dv + h * Kv + c] += probabilities[j] * v.v[(b * Lk + j) * Dv + h * Kv + c];
          }
        }
      }
    }
  }
  return y;
}
