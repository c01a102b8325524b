import { crc32, deflateSync } from "node:zlib";
import { RcmError } from "../error.ts";

const SIGNATURE = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);

/** Grey level between and around the images of a grid. */
const BACKGROUND = 255;

function chunk(type: string, body: Uint8Array): Uint8Array {
  const out = new Uint8Array(body.length + 12);
  const view = new DataView(out.buffer);
  view.setUint32(0, body.length);
  for (let i = 0; i < 4; i++) out[4 + i] = type.charCodeAt(i);
  out.set(body, 8);
  view.setUint32(8 + body.length, crc32(out.subarray(4, 8 + body.length)));
  return out;
}

export interface ImageSize {
  width: number;
  height: number;
  channels: 1 | 3;
}

export interface GridOptions extends ImageSize {
  columns: number;
  /** White pixels between and around the images; 2 when absent. */
  pad?: number;
  /** Magnification; 1 when absent. */
  scale?: number;
}

function checkSize(op: string, pixels: Uint8Array, { width, height, channels }: ImageSize): void {
  const whole = [width, height].every((side) => Number.isInteger(side) && side >= 1 && side < 0x80000000);
  if (!whole)
    throw new RcmError("E_ARG", "an image needs positive whole sides below 2^31", { op, got: `${width} x ${height}` });
  if (channels !== 1 && channels !== 3)
    throw new RcmError("E_ARG", "an image has 1 or 3 channels", { op, want: "1 or 3", got: channels });
  const want = width * height * channels;
  if (pixels.length !== want)
    throw new RcmError("E_SHAPE", "pixels do not fill the image", { op, want, got: pixels.length });
}

/**
 * Encodes 8-bit grey or RGB pixels, row by row from the top, as a PNG; rows are Up-filtered where that is smaller.
 * Shapes: pixels [height, width, channels].
 * Throws: E_ARG or E_SHAPE if the sizes do not fit.
 * Source: W3C PNG specification, third edition.
 */
export function encodePng(pixels: Uint8Array, width: number, height: number, channels: 1 | 3): Uint8Array {
  checkSize("encodePng", pixels, { width, height, channels });
  const stride = width * channels;
  const raw = new Uint8Array((stride + 1) * height);
  for (let y = 0; y < height; y++) {
    const row = pixels.subarray(y * stride, (y + 1) * stride);
    const above = y === 0 ? undefined : pixels.subarray((y - 1) * stride, y * stride);
    const at = y * (stride + 1);
    if (above && upIsSmaller(row, above)) {
      raw[at] = 2;
      for (let x = 0; x < stride; x++) raw[at + 1 + x] = row[x] - above[x];
    } else raw.set(row, at + 1);
  }
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([8, channels === 1 ? 0 : 2, 0, 0, 0], 8);
  const parts = [SIGNATURE, chunk("IHDR", header), chunk("IDAT", deflateSync(raw)), chunk("IEND", new Uint8Array(0))];
  return new Uint8Array(Buffer.concat(parts));
}

/** The specification's heuristic: the smaller sum of absolute signed bytes compresses better. */
function upIsSmaller(row: Uint8Array, above: Uint8Array): boolean {
  let [plain, up] = [0, 0];
  for (let x = 0; x < row.length; x++) {
    plain += Math.abs((row[x] << 24) >> 24);
    up += Math.abs(((row[x] - above[x]) << 24) >> 24);
  }
  return up < plain;
}

/**
 * Arranges images of one size in rows of `columns` on white, with `pad` pixels between and around, magnified `scale`
 * times.
 * Shapes: images [height, width, channels] each; the result's pixels are [result.height, result.width, channels].
 * Throws: E_ARG or E_SHAPE if there are no images or the sizes do not fit.
 */
export function grid(
  images: Uint8Array[],
  { width, height, channels, columns, pad = 2, scale = 1 }: GridOptions,
): { pixels: Uint8Array; width: number; height: number } {
  const op = "grid";
  if (images.length === 0) throw new RcmError("E_ARG", "a grid needs at least one image", { op });
  if (!Number.isInteger(columns) || columns < 1)
    throw new RcmError("E_ARG", "a grid needs at least one column", { op, got: columns });
  if (!Number.isInteger(pad) || pad < 0)
    throw new RcmError("E_ARG", "padding is a whole number of pixels", { op, got: pad });
  if (!Number.isInteger(scale) || scale < 1) throw new RcmError("E_ARG", "scale is a whole factor", { op, got: scale });
  for (const image of images) checkSize(op, image, { width, height, channels });
  const across = Math.min(columns, images.length);
  const down = Math.ceil(images.length / columns);
  const [cellWidth, cellHeight] = [width * scale, height * scale];
  const [totalWidth, totalHeight] = [across * (cellWidth + pad) + pad, down * (cellHeight + pad) + pad];
  const pixels = new Uint8Array(totalWidth * totalHeight * channels).fill(BACKGROUND);
  images.forEach((image, i) => {
    const left = pad + (i % columns) * (cellWidth + pad);
    const top = pad + Math.floor(i / columns) * (cellHeight + pad);
    for (let y = 0; y < cellHeight; y++) {
      const source = Math.floor(y / scale) * width * channels;
      let target = ((top + y) * totalWidth + left) * channels;
      for (let x = 0; x < cellWidth; x++) {
        const from = source + Math.floor(x / scale) * channels;
        for (let c = 0; c < channels; c++) pixels[target++] = image[from + c];
      }
    }
  });
  return { pixels, width: totalWidth, height: totalHeight };
}
