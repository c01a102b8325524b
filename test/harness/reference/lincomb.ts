import { plain, type Plain } from "./plain.ts";

/**
 * y[r] = sum_i coef_i[r] x_i[r]. Rows r are the samples, or their frames where some coefficient has one per frame.
 * A number holds for every row, a coefficient per sample for every frame of it. Shapes: x_i [B, ...] or [B, T, ...].
 */
export function lincomb(x: readonly Plain[], coef: readonly (Float64Array | number)[]): Plain {
  const y = plain(x[0].shape);
  const rows = Math.max(y.shape[0], ...coef.map((c) => (typeof c === "number" ? 1 : c.length)));
  const N = y.v.length / rows;
  const at = (c: Float64Array | number, row: number): number =>
    typeof c === "number" ? c : c[Math.floor((row * c.length) / rows)];
  for (let row = 0; row < rows; row++) {
    for (let n = 0; n < N; n++) {
      for (let i = 0; i < x.length; i++) y.v[row * N + n] += at(coef[i], row) * x[i].v[row * N + n];
    }
  }
  return y;
}
