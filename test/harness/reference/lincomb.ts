import { plain, type Plain } from "./plain.ts";

/** y[b] = sum_i coef_i[b] x_i[b]; a number holds for every sample. Shapes: x_i [B, ...]. */
export function lincomb(x: readonly Plain[], coef: readonly (Float64Array | number)[]): Plain {
  const y = plain(x[0].shape);
  const B = y.shape[0];
  const N = y.v.length / B;
  for (let b = 0; b < B; b++) {
    for (let n = 0; n < N; n++) {
      for (let i = 0; i < x.length; i++) {
        const c = coef[i];
        y.v[b * N + n] += (typeof c === "number" ? c : c[b]) * x[i].v[b * N + n];
      }
    }
  }
  return y;
}
