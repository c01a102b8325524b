import { layerNorm } from "./layer_norm.ts";
import { plain, type Plain } from "./plain.ts";

/** y = layerNorm(x) * (1 + scale) + shift, both slots of the modulation. Shapes: x [B, L, D], modulation [B, S, D]. */
export function adaLayerNorm(x: Plain, modulation: Plain, p: { shift: number; scale: number; eps: number }): Plain {
  const [B, L, D] = x.shape;
  const S = modulation.shape[1];
  const normed = layerNorm(x, null, null, p.eps);
  const y = plain(x.shape);
  for (let b = 0; b < B; b++) {
    for (let l = 0; l < L; l++) {
      for (let d = 0; d < D; d++) {
        const scale = modulation.v[(b * S + p.scale) * D + d];
        const shift = modulation.v[(b * S + p.shift) * D + d];
        const i = (b * L + l) * D + d;
        y.v[i] = normed.v[i] * (1 + scale) + shift;
      }
    }
  }
  return y;
}
