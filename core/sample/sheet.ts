import { hostValues, type HostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { pixelsOfLatent } from "../data/digits.ts";
import { encodePng, grid } from "../io/png.ts";

/** One 8-bit picture of a digit latent. Shapes: latents [B, 1, 1, Y, X] -> B pictures of Y * X. */
export function pictures(latents: HostTensor): Uint8Array[] {
  const [B, C, T, Y, X] = latents.shape;
  if (C !== 1 || T !== 1) throw new RcmError("E_SHAPE", "only one-channel still latents are pictures themselves; others need a VAE", { op: "pictures", want: [B, 1, 1, Y, X], got: latents.shape });
  const values = hostValues(latents);
  return Array.from({ length: B }, (_, b) => pixelsOfLatent(values.subarray(b * Y * X, (b + 1) * Y * X)));
}

/** A PNG sheet, a row per tensor (or `columns` wide). Shapes: rows of [B, 1, 1, Y, X]. */
export function gridSheet(rows: HostTensor[], columns = rows[0]?.shape[0] ?? 1, scale = 2): Uint8Array {
  const [, , , Y, X] = rows[0].shape;
  const sheet = grid(rows.flatMap(pictures), X, Y, 1, columns, 2, scale);
  return encodePng(sheet.pixels, sheet.width, sheet.height, 1);
}
