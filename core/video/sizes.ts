import { RcmError } from "../error.ts";
import type { LatentSpec, NetSpec, VideoSpec } from "../models/family.ts";

/** Width and height in pixels. */
export interface VideoSize {
  width: number;
  height: number;
}

/** Frame rate of a video, and the pixel frames, rows and columns of its latent's cells. */
export interface VideoScale {
  rate: number;
  strides: LatentSpec["strides"];
}

/** What sizes depend on: the cells of a latent, and the patches of the network. */
export interface PixelGrid {
  latent: Pick<LatentSpec, "strides">;
  config: Pick<NetSpec["config"], "patch">;
}

/** Frames per second where a family names none. */
const DEFAULT_RATE = 16;

export const videoScale = ({ family, latent }: NetSpec): VideoScale => ({
  rate: family.video?.rate ?? DEFAULT_RATE,
  strides: latent.strides,
});

/** Width and height of a patch of the network in pixels: the steps of a video's size. */
export const patchSize = ({ latent: { strides }, config: { patch } }: PixelGrid): VideoSize => ({
  width: strides[2] * patch[2],
  height: strides[1] * patch[1],
});

/** A size that a family was trained on, by names that `sizes` has. */
export function trainedSize({ sizes }: VideoSpec, resolution: string, aspect: string): VideoSize {
  const [width, height] = sizes[resolution][aspect];
  return { width, height };
}

/** Parses "704x544". Throws: E_ARG unless both sides are whole patches. */
export function parseSize(text: string, grid: PixelGrid): VideoSize {
  const step = patchSize(grid);
  const found = /^(\d{1,5})x(\d{1,5})$/.exec(text);
  const [width, height] = found ? [Number(found[1]), Number(found[2])] : [0, 0];
  if (width < step.width || height < step.height || width % step.width !== 0 || height % step.height !== 0) {
    const unit = step.width === step.height ? String(step.width) : `${step.width}x${step.height}`;
    const want = `multiples of ${unit}`;
    throw new RcmError("E_ARG", "--size is WIDTHxHEIGHT", { op: "usage", want, got: text });
  }
  return { width, height };
}

/**
 * The size with the aspect ratio of a picture and about the area of `base`, in whole patches.
 * Source: public rCM code of Wan2.2 I2V.
 */
export function adaptiveSize(base: VideoSize, picture: VideoSize, grid: PixelGrid): VideoSize {
  const area = base.width * base.height;
  const aspect = picture.height / picture.width;
  const step = patchSize(grid);
  const whole = (ideal: number, unit: number): number => Math.max(1, Math.round(ideal / unit)) * unit;
  return { width: whole(Math.sqrt(area / aspect), step.width), height: whole(Math.sqrt(area * aspect), step.height) };
}

/**
 * Shape of a video's latent.
 * Shapes: -> [C, 1 + (frames - 1) / strides[0], height / strides[1], width / strides[2]].
 * Throws: E_ARG unless the frames after the first fill latent frames.
 */
export function videoLatentShape(
  frames: number,
  { width, height }: VideoSize,
  { channels, strides: [time, rows, columns] }: Pick<LatentSpec, "channels" | "strides">,
): [number, number, number, number] {
  if (!Number.isSafeInteger(frames) || frames < 1 || (frames - 1) % time !== 0) {
    const want = `1, ${1 + time}, ${1 + 2 * time}, ..`;
    throw new RcmError("E_ARG", `frames are ${time}n + 1`, { op: "usage", want, got: frames });
  }
  return [channels, 1 + (frames - 1) / time, height / rows, width / columns];
}

/** Frames and size of a latent's video. Shapes: [C, T, Y, X]. */
export const videoOf = (
  [, T, Y, X]: readonly number[],
  [time, rows, columns]: LatentSpec["strides"],
): VideoSize & { frames: number } => ({ frames: 1 + (T - 1) * time, width: X * columns, height: Y * rows });
