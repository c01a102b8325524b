import { hostValues, type HostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { pixelsOfLatent } from "./digits.ts";
import { encodePng, grid } from "../io/png.ts";

/** One 8-bit picture of a digit latent. Shapes: latents [B, 1, 1, Y, X] -> B pictures of Y * X. */
export function pictures(latents: HostTensor): Uint8Array[] {
  const [B, C, T, Y, X] = latents.shape;
  if (C !== 1 || T !== 1) {
    const message = "only one-channel still latents are pictures themselves; others need a VAE";
    throw new RcmError("E_SHAPE", message, { op: "pictures", want: [B, 1, 1, Y, X], got: latents.shape });
  }
  const values = hostValues(latents);
  return Array.from({ length: B }, (_, b) => pixelsOfLatent(values.subarray(b * Y * X, (b + 1) * Y * X)));
}

/** A PNG sheet with a row per tensor (or `columns` wide). Shapes: rows of [B, 1, 1, Y, X]. */
export function gridSheet(rows: HostTensor[], columns = rows[0]?.shape[0] ?? 1, scale = 2): Uint8Array {
  const [, , , Y, X] = rows[0].shape;
  const sheet = grid(rows.flatMap(pictures), { width: X, height: Y, channels: 1, columns, scale });
  return encodePng(sheet.pixels, sheet.width, sheet.height, 1);
}

/** Range of a preview in standard deviations on each side of a channel's mean. */
const PREVIEW_RANGE = 2.5;

/**
 * Frames of a latent as RGB: its first three channels, each normalised by its mean and deviation.
 * Shapes: [C, T, Y, X] -> frames of Y * X * 3.
 */
export function latentPreview(latent: HostTensor, frames: readonly number[]): Uint8Array[] {
  const [C, T, Y, X] = latent.shape.slice(-4);
  const values = hostValues(latent);
  const channels = [0, 1, 2].map((i) => {
    const c = Math.min(i, C - 1);
    const channel = values.subarray(c * T * Y * X, (c + 1) * T * Y * X);
    const mean = channel.reduce((a, b) => a + b, 0) / channel.length;
    const std = Math.sqrt(channel.reduce((a, b) => a + (b - mean) ** 2, 0) / channel.length) || 1;
    return { channel, low: mean - PREVIEW_RANGE * std, span: 2 * PREVIEW_RANGE * std };
  });
  return frames.map((t) => {
    const rgb = new Uint8Array(Y * X * 3);
    channels.forEach(({ channel, low, span }, c) => {
      for (let i = 0; i < Y * X; i++) {
        rgb[3 * i + c] = Math.min(255, Math.max(0, Math.round((255 * (channel[t * Y * X + i] - low)) / span)));
      }
    });
    return rgb;
  });
}

/** First, middle and last frame of T. */
export const threeFrames = (T: number): number[] => [...new Set([0, T >> 1, T - 1])];

/**
 * A PNG of latent previews, `columns` cells wide; a cell has three frames of a latent side by side.
 * Shapes: latents [.., C, T, Y, X] of one shape.
 */
export function latentSheet(latents: HostTensor[], columns: number): Uint8Array {
  const [, T, Y, X] = latents[0].shape.slice(-4);
  const frames = threeFrames(T);
  const cells = latents.flatMap((l) => latentPreview(l, frames));
  const scale = Math.max(1, Math.floor(256 / X));
  const sheet = grid(cells, { width: X, height: Y, channels: 3, columns: columns * frames.length, scale });
  return encodePng(sheet.pixels, sheet.width, sheet.height, 3);
}
