import { RcmError } from "../error.ts";

export const RESOLUTIONS = ["480p", "720p"] as const;
export const ASPECTS = ["16:9", "9:16", "1:1", "4:3", "3:4"] as const;
export type Resolution = (typeof RESOLUTIONS)[number];
export type Aspect = (typeof ASPECTS)[number];

/** Width and height in pixels. */
export interface VideoSize {
  width: number;
  height: number;
}

/** Sizes that Wan2.1 was trained at, width then height. Source: public rCM code. */
const SIZES: Record<Resolution, Record<Aspect, readonly [number, number]>> = {
  "480p": { "16:9": [832, 480], "9:16": [480, 832], "1:1": [640, 640], "4:3": [640, 480], "3:4": [480, 640] },
  "720p": { "16:9": [1280, 720], "9:16": [720, 1280], "1:1": [960, 960], "4:3": [960, 720], "3:4": [720, 960] },
};

/** Pixels per latent and latents per frame step of the Wan2.1 VAE, and the side of the network's patches. */
const SPACE = 8;
const TIME = 4;
const PATCH = 2;
export const STRIDE = SPACE * PATCH;
export const LATENT_CHANNELS = 16;
export const FPS = 16;

export function videoSize(resolution: Resolution, aspect: Aspect): VideoSize {
  const [width, height] = SIZES[resolution][aspect];
  return { width, height };
}

/** "704x544" as a size. Throws: E_ARG unless both sides are multiples of 16. */
export function parseSize(text: string): VideoSize {
  const found = /^(\d{1,5})x(\d{1,5})$/.exec(text);
  const [width, height] = found ? [Number(found[1]), Number(found[2])] : [0, 0];
  if (width < STRIDE || height < STRIDE || width % STRIDE !== 0 || height % STRIDE !== 0) {
    throw new RcmError("E_ARG", "--size is WIDTHxHEIGHT", { op: "usage", want: `multiples of ${STRIDE}`, got: text });
  }
  return { width, height };
}

/**
 * The size with the proportions of a picture and about the area of `base`, in whole patches.
 * Source: public rCM code of Wan2.2 I2V.
 */
export function adaptiveSize(base: VideoSize, picture: VideoSize): VideoSize {
  const area = base.width * base.height;
  const aspect = picture.height / picture.width;
  const side = (ideal: number): number => Math.max(1, Math.round(ideal / STRIDE)) * STRIDE;
  return { width: side(Math.sqrt(area / aspect)), height: side(Math.sqrt(area * aspect)) };
}

/**
 * Latent of a video. Shapes: [16, 1 + (frames - 1) / 4, height / 8, width / 8]. Throws: E_ARG unless frames = 4n + 1.
 */
export function videoLatentShape(frames: number, { width, height }: VideoSize): [number, number, number, number] {
  if (!Number.isSafeInteger(frames) || frames < 1 || (frames - 1) % TIME !== 0) {
    throw new RcmError("E_ARG", "frames are 4n + 1", { op: "usage", want: "1, 5, .. 77, 81, ..", got: frames });
  }
  return [LATENT_CHANNELS, 1 + (frames - 1) / TIME, height / SPACE, width / SPACE];
}

/** Frames and size of a latent. Shapes: [C, T, Y, X]. */
export const videoOf = ([, T, Y, X]: readonly number[]): VideoSize & { frames: number } => ({
  frames: 1 + (T - 1) * TIME,
  width: X * SPACE,
  height: Y * SPACE,
});
