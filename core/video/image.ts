import { readFileSync } from "node:fs";
import { RcmError } from "../error.ts";
import { decodePng } from "../io/png_read.ts";
import type { Device, Tensor } from "../tensor.ts";
import type { Picture } from "./sheet.ts";
import type { VideoSize } from "./sizes.ts";

/** Resampling filters for input pictures: the antialiased bilinear of the public rCM code, and two sharper ones. */
export const RESIZE_FILTERS = { bilinear: "bilinear", bicubic: "cubic", lanczos: "lanczos3" } as const;
export type ResizeFilter = keyof typeof RESIZE_FILTERS;

/** An encoded picture: JPEG, PNG, WebP or BMP, decoded by the runtime. */
export class ImageFile {
  private constructor(
    readonly path: string,
    private readonly bytes: Uint8Array,
    /** Size after applying the EXIF orientation. */
    readonly size: VideoSize,
  ) {}

  /** Throws: E_IO when it cannot be read, E_FORMAT when it cannot be decoded. */
  static async open(path: string): Promise<ImageFile> {
    let bytes: Uint8Array;
    try {
      bytes = readFileSync(path);
    } catch (cause) {
      throw new RcmError("E_IO", `cannot read ${path}: ${(cause as Error).message}`, { op: "image", cause });
    }
    const { width, height } = decodePng(await converted(path, bytes, null), path);
    return new ImageFile(path, bytes, { width, height });
  }

  /** Decodes, resized to `size` if given (aspect ratio not kept). Shapes: pixels [height, width, 3]. */
  async pixels(size: VideoSize | null, filter: ResizeFilter): Promise<Picture> {
    const same = size === null || (size.width === this.size.width && size.height === this.size.height);
    return decodePng(
      await converted(this.path, this.bytes, same ? null : { ...(size as VideoSize), filter }),
      this.path,
    );
  }
}

async function converted(
  path: string,
  bytes: Uint8Array,
  to: (VideoSize & { filter: ResizeFilter }) | null,
): Promise<Uint8Array> {
  try {
    const image = new Bun.Image(bytes);
    if (to) image.resize(to.width, to.height, { filter: RESIZE_FILTERS[to.filter] });
    return await image.png({ compressionLevel: 1 }).bytes();
  } catch (cause) {
    throw new RcmError("E_FORMAT", `${path} is no readable picture: ${(cause as Error).message}`, {
      op: "image",
      cause,
    });
  }
}

/**
 * A picture as the first of `frames` frames, the others zero (grey).
 * Shapes: -> [1, 3, frames, Y, X] f32 in [-1, 1].
 */
export function firstFrame(device: Device, { pixels, width, height }: Picture, frames: number): Tensor {
  const plane = width * height;
  const video = device.zeros([1, 3, frames, height, width], "f32");
  for (let c = 0; c < 3; c++) {
    const values = Float32Array.from({ length: plane }, (_, i) => pixels[i * 3 + c] / 127.5 - 1);
    video
      .window(c * frames * plane, [plane])
      .setHost({ dtype: "f32", shape: [plane], data: new Uint8Array(values.buffer) });
  }
  return video;
}
