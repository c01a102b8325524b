import { plain, type Plain } from "./plain.ts";

/** softmax(scale x) over the last axis. Shapes: x [..., N]. */
export function softmaxRows(x: Plain, scale: number): Plain {
  const N = x.shape[x.shape.length - 1];
  const y = plain(x.shape);
  for (let row = 0; row < x.v.length; row += N) {
    let most = -Infinity;
    for (let n = 0; n < N; n++) most = Math.max(most, scale * x.v[row + n]);
    let sum = 0;
    for (let n = 0; n < N; n++) sum += Math.exp(scale * x.v[row + n] - most);
    for (let n = 0; n < N; n++) y.v[row + n] = Math.exp(scale * x.v[row + n] - most) / sum;
  }
  return y;
}
