import { hostValues, type HostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { pixelsOfLatent } from "./digits.ts";
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
  const sheet = grid(rows.flatMap(pictures), { width: X, height: Y, channels: 1, columns, scale });
  return encodePng(sheet.pixels, sheet.width, sheet.height, 1);
}

/** How far from a channel's mean, in standard deviations, the darkest and lightest value of a preview lie. */
const PREVIEW_RANGE = 2.5;

/** The first three channels of frames of a latent as RGB, each channel stretched to its own mean and deviation. Shapes: [C, T, Y, X] -> frames of Y * X * 3. */
export function latentPreview(latent: HostTensor, frames: readonly number[]): Uint8Array[] {
  const [C, T, Y, X] = latent.shape.slice(-4);
  const values = hostValues(latent);
  const channels = [0, 1, 2].map((i) => {
    const c = Math.min(i, C - 1);
    const own = values.subarray(c * T * Y * X, (c + 1) * T * Y * X);
    const mean = own.reduce((a, b) => a + b, 0) / own.length;
    const std = Math.sqrt(own.reduce((a, b) => a + (b - mean) ** 2, 0) / own.length) || 1;
    return { own, low: mean - PREVIEW_RANGE * std, span: 2 * PREVIEW_RANGE * std };
  });
  return frames.map((t) => {
    const out = new Uint8Array(Y * X * 3);
    channels.forEach(({ own, low, span }, c) => {
      for (let i = 0; i < Y * X; i++) out[3 * i + c] = Math.min(255, Math.max(0, Math.round((255 * (own[t * Y * X + i] - low)) / span)));
    });
    return out;
  });
}

/** First, middle and last frame of T. */
export const threeFrames = (T: number): number[] => [...new Set([0, T >> 1, T - 1])];

/** A PNG of latent previews: a cell of three frames side by side for each latent, `columns` cells wide. Shapes: latents [.., C, T, Y, X] of one shape. */
export function latentSheet(latents: HostTensor[], columns: number): Uint8Array {
  const [, T, Y, X] = latents[0].shape.slice(-4);
  const frames = threeFrames(T);
  const sheet = grid(
    latents.flatMap((l) => latentPreview(l, frames)),
    { width: X, height: Y, channels: 3, columns: columns * frames.length, scale: Math.max(1, Math.floor(256 / X)) },
  );
  return encodePng(sheet.pixels, sheet.width, sheet.height, 3);
}
