import { plain, type Plain } from "./plain.ts";

/**
 * y = x + gate * h with the gate in a slot of the modulation; without modulation y = x + h.
 * Shapes: x, h [B, L, D], modulation [B, S, D].
 */
export function gateResidual(x: Plain, h: Plain, modulation: Plain | null, slot: number): Plain {
  const [B, L, D] = x.shape;
  const y = plain(x.shape);
  for (let b = 0; b < B; b++) {
    for (let l = 0; l < L; l++) {
      for (let d = 0; d < D; d++) {
        const gate = modulation ? modulation.v[(b * modulation.shape[1] + slot) * D + d] : 1;
        const i = (b * L + l) * D + d;
        y.v[i] = x.v[i] + gate * h.v[i];
      }
    }
  }
  return y;
}
