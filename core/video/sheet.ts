import { encodePng, grid } from "../io/png.ts";
import type { VideoSize } from "./sizes.ts";

/** Maximum number of frames of a video on its contact sheet. */
const SHOWN = 8;
/** Approximate width of a frame on the sheet. */
const WIDTH = 208;
const PAD = 4;

/** Indices of `n` frames evenly spaced from the first to the last of `count`. */
export function evenly(count: number, n = SHOWN): number[] {
  const shown = Math.min(n, count);
  return Array.from({ length: shown }, (_, i) => (shown === 1 ? 0 : Math.round((i * (count - 1)) / (shown - 1))));
}

/**
 * Mean over blocks of factor x factor pixels; a remainder at the right and bottom is dropped.
 * Shapes: [Y, X, 3] -> [Y/f, X/f, 3].
 */
export function shrink(
  pixels: Uint8Array,
  { width, height }: VideoSize,
  factor: number,
): { pixels: Uint8Array; width: number; height: number } {
  const [W, H] = [Math.floor(width / factor), Math.floor(height / factor)];
  const out = new Uint8Array(W * H * 3);
  const area = factor * factor;
  for (let y = 0; y < H; y++) {
    for (let x = 0; x < W; x++) {
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let v = 0; v < factor; v++) {
          for (let u = 0; u < factor; u++) sum += pixels[((y * factor + v) * width + x * factor + u) * 3 + c];
        }
        out[(y * W + x) * 3 + c] = Math.round(sum / area);
      }
    }
  }
  return { pixels: out, width: W, height: H };
}

/** Pixels of a picture. Shapes: [height, width, 3]. */
export interface Picture extends VideoSize {
  pixels: Uint8Array;
}

/** Collects evenly spaced frames of one video as they are written; they form its row of the contact sheet. */
export class SheetRow {
  private at = 0;
  private readonly wanted: Set<number>;
  private readonly factor: number;
  private readonly frames: Picture[] = [];

  constructor(
    readonly size: VideoSize,
    count: number,
  ) {
    this.wanted = new Set(evenly(count));
    this.factor = Math.max(1, Math.round(size.width / WIDTH));
  }

  frame(pixels: Uint8Array): void {
    if (this.wanted.has(this.at++)) this.frames.push(shrink(pixels, this.size, this.factor));
  }

  row(): Picture {
    const { width, height } = this.frames[0];
    return grid(
      this.frames.map((f) => f.pixels),
      { width, height, channels: 3, columns: this.frames.length, pad: PAD },
    );
  }
}

export const pngOf = (p: Picture): Uint8Array => encodePng(p.pixels, p.width, p.height, 3);

/** Stacks rows vertically on white, as wide as the widest. */
export function stack(rows: readonly Picture[]): Picture {
  const width = Math.max(...rows.map((r) => r.width));
  const height = rows.reduce((n, r) => n + r.height, 0);
  const pixels = new Uint8Array(width * height * 3).fill(255);
  let top = 0;
  for (const r of rows) {
    for (let y = 0; y < r.height; y++) {
      pixels.set(r.pixels.subarray(y * r.width * 3, (y + 1) * r.width * 3), (top + y) * width * 3);
    }
    top += r.height;
  }
  return { pixels, width, height };
}
