import { plain, type Plain } from "./plain.ts";

/** y = x w^T + b. Shapes: x [..., K], w [N, K], b [N] or null -> [..., N]. */
export function linear(x: Plain, w: Plain, b: Plain | null): Plain {
  const [N, K] = w.shape;
  const M = x.v.length / K;
  const y = plain([...x.shape.slice(0, -1), N]);
  for (let m = 0; m < M; m++) {
    for (let n = 0; n < N; n++) {
      let sum = b ? b.v[n] : 0;
      for (let k = 0; k < K; k++) sum += x.v[m * K + k] * w.v[n * K + k];
      y.v[m * N + n] = sum;
    }
  }
  return y;
}
