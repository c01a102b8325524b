import { plain, type Plain } from "./plain.ts";

/** y = (x - mean) / sqrt(variance + eps) * w + b over the last axis. Shapes: x [..., N], w and b [N] or null. */
export function layerNorm(x: Plain, w: Plain | null, b: Plain | null, eps: number): Plain {
  const N = x.shape[x.shape.length - 1];
  const y = plain(x.shape);
  for (let row = 0; row < x.v.length; row += N) {
    let mean = 0;
    for (let n = 0; n < N; n++) mean += x.v[row + n] / N;
    let variance = 0;
    for (let n = 0; n < N; n++) variance += (x.v[row + n] - mean) ** 2 / N;
    for (let n = 0; n < N; n++) {
      const normed = (x.v[row + n] - mean) / Math.sqrt(variance + eps);
      y.v[row + n] = normed * (w ? w.v[n] : 1) + (b ? b.v[n] : 0);
    }
  }
  return y;
}
