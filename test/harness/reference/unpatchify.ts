import type { PatchParams } from "../../../core/ops/patchify.ts";
import { eachPatchElement } from "./patchify.ts";
import { plain, type Plain } from "./plain.ts";

/** The inverse of patchify. Shapes: x [B, L, P] -> `shape` [B, C, T, Y, X]. */
export function unpatchify(x: Plain, p: Pick<PatchParams, "patch" | "order"> & { shape: readonly number[] }): Plain {
  const y = plain(p.shape);
  eachPatchElement(p.shape, p, (latent, patches) => (y.v[latent] = x.v[patches]));
  return y;
}
