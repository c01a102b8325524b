import type { PatchParams } from "../../../core/ops/patchify.ts";
import { plain, type Plain } from "./plain.ts";

/** Calls `each` with where an element of the latent is in the latent and in the patches [B, L, P]. */
export function eachPatchElement(
  [B, C, T, Y, X]: readonly number[],
  { patch: [pt, py, px], order }: Pick<PatchParams, "patch" | "order">,
  each: (latent: number, patches: number) => void,
): void {
  const [rows, columns] = [Y / py, X / px];
  const L = (T / pt) * rows * columns;
  const P = C * pt * py * px;
  for (let b = 0; b < B; b++) {
    for (let c = 0; c < C; c++) {
      for (let t = 0; t < T; t++) {
        for (let y = 0; y < Y; y++) {
          for (let x = 0; x < X; x++) {
            const token = (Math.floor(t / pt) * rows + Math.floor(y / py)) * columns + Math.floor(x / px);
            const inside = ((t % pt) * py + (y % py)) * px + (x % px);
            const place = order === "channel_first" ? c * pt * py * px + inside : inside * C + c;
            each((((b * C + c) * T + t) * Y + y) * X + x, (b * L + token) * P + place);
          }
        }
      }
    }
  }
}

/** Flat patches, tokens in the order (t y x). Shapes: x [B, C, T, Y, X] -> [B, L, P]. */
export function patchify(x: Plain, p: Pick<PatchParams, "patch" | "order">): Plain {
  const P = x.shape[1] * p.patch[0] * p.patch[1] * p.patch[2];
  const y = plain([x.shape[0], x.v.length / x.shape[0] / P, P]);
  eachPatchElement(x.shape, p, (latent, patches) => (y.v[patches] = x.v[latent]));
  return y;
}
