import { plain, type Plain } from "./plain.ts";

/** loss[b] = log(sum_n exp(x[b, n])) - x[b, label[b]]. Shapes: x [B, N], label [B] -> [B]. */
export function crossEntropy(x: Plain, label: Plain): Plain {
  const [B, N] = x.shape;
  const y = plain([B]);
  for (let b = 0; b < B; b++) {
    let sum = 0;
    for (let n = 0; n < N; n++) sum += Math.exp(x.v[b * N + n]);
    y.v[b] = Math.log(sum) - x.v[b * N + label.v[b]];
  }
  return y;
}
