import { plain, type Plain } from "./plain.ts";

/**
 * loss[b] = weight[b] sum((x - target - delta)^2); null is zero.
 * Shapes: x, target, delta [B, ...], weight [B] -> [B]; or [B, T, ...], [B * T] -> [B * T].
 */
export function sqLoss(x: Plain, target: Plain | null, delta: Plain | null, weight: Float64Array): Plain {
  const B = weight.length;
  const N = x.v.length / B;
  const y = plain([B]);
  for (let b = 0; b < B; b++) {
    for (let i = b * N; i < (b + 1) * N; i++) {
      y.v[b] += weight[b] * (x.v[i] - (target ? target.v[i] : 0) - (delta ? delta.v[i] : 0)) ** 2;
    }
  }
  return y;
}
