import { plain, type Plain } from "./plain.ts";

/**
 * y[b, s] = p[s] + e[b, s], or p[s] + e[b, 0] where e has one slot.
 * Shapes: p [..., S, D], e [B, S | 1, D] -> [B, S, D].
 */
export function addModulation(p: Plain, e: Plain): Plain {
  const [S, D] = p.shape.slice(-2);
  const [B, slots] = e.shape;
  const y = plain([B, S, D]);
  for (let b = 0; b < B; b++) {
    for (let s = 0; s < S; s++) {
      const from = slots === 1 ? b : b * S + s;
      for (let d = 0; d < D; d++) y.v[(b * S + s) * D + d] = p.v[s * D + d] + e.v[from * D + d];
    }
  }
  return y;
}
