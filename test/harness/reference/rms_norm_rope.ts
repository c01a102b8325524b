import { plain, type Plain } from "./plain.ts";

export interface Rotation {
  /** Shapes: [L, K/2] each. */
  cos: Plain;
  sin: Plain;
  pairing: "interleaved" | "halves";
}

export interface RmsNormRope {
  heads: number;
  /** Elements that share one mean square. */
  group: number;
  rope: Rotation | null;
  eps: number;
}

/**
 * y = x / sqrt(mean(x^2) + eps) * w over each group, then each head's pairs (2i, 2i+1), or (i, i + K/2), turned by the
 * angle of their token. Shapes: x [B, L, heads * K], w [group].
 */
export function rmsNormRope(x: Plain, w: Plain, { heads, group, rope, eps }: RmsNormRope): Plain {
  const [, L, D] = x.shape;
  const normed = plain(x.shape);
  for (let from = 0; from < x.v.length; from += group) {
    let square = 0;
    for (let i = 0; i < group; i++) square += x.v[from + i] ** 2 / group;
    for (let i = 0; i < group; i++) normed.v[from + i] = (x.v[from + i] / Math.sqrt(square + eps)) * w.v[i];
  }
  if (!rope) return normed;
  const y = plain(x.shape);
  const K = D / heads;
  for (let from = 0; from < x.v.length; from += K) {
    const l = Math.floor(from / D) % L;
    for (let i = 0; i < K / 2; i++) {
      const [a, b] = rope.pairing === "interleaved" ? [from + 2 * i, from + 2 * i + 1] : [from + i, from + i + K / 2];
      const [cos, sin] = [rope.cos.v[(l * K) / 2 + i], rope.sin.v[(l * K) / 2 + i]];
      y.v[a] = normed.v[a] * cos - normed.v[b] * sin;
      y.v[b] = normed.v[a] * sin + normed.v[b] * cos;
    }
  }
  return y;
}
