import { crc32, inflateSync } from "node:zlib";
import { RcmError } from "../error.ts";

/** Channels of the colour types that are read: grey, RGB, grey and alpha, RGBA. */
const CHANNELS: Record<number, number> = { 0: 1, 2: 3, 4: 2, 6: 4 };
/** Most pixels of a picture; a small file may claim any size. */
const MOST_PIXELS = 1 << 28;

const bad = (name: string, message: string, got?: unknown): RcmError =>
  new RcmError("E_FORMAT", `${name}: ${message}`, { op: "png", got });

interface Header {
  width: number;
  height: number;
  channels: number;
}

function readChunks(bytes: Uint8Array, name: string): { header: Header; data: Uint8Array } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 8 || view.getUint32(0) !== 0x89504e47 || view.getUint32(4) !== 0x0d0a1a0a)
    throw bad(name, "is no PNG");
  let header: Header | null = null;
  const parts: Uint8Array[] = [];
  for (let at = 8; ; ) {
    if (at + 12 > bytes.length) throw bad(name, "ends early");
    const [length, type] = [view.getUint32(at), String.fromCharCode(...bytes.subarray(at + 4, at + 8))];
    if (at + 12 + length > bytes.length) throw bad(name, `chunk ${type} reaches past the end`);
    const body = bytes.subarray(at + 8, at + 8 + length);
    if (crc32(bytes.subarray(at + 4, at + 8 + length)) !== view.getUint32(at + 8 + length))
      throw bad(name, `chunk ${type} is damaged`);
    if (type === "IHDR") {
      if (length !== 13) throw bad(name, "has a header of another length", length);
      const [width, height, depth, colour, interlace] = [
        view.getUint32(at + 8),
        view.getUint32(at + 12),
        body[8],
        body[9],
        body[12],
      ];
      const channels = CHANNELS[colour];
      if (depth !== 8 || channels === undefined || interlace !== 0)
        throw bad(name, "is not 8-bit grey or RGB without interlacing", { depth, colour, interlace });
      if (width < 1 || height < 1 || width * height > MOST_PIXELS)
        throw bad(name, "has no usable size", `${width} x ${height}`);
      header = { width, height, channels };
    } else if (type === "IDAT") parts.push(body);
    else if (type === "IEND") break;
    at += 12 + length;
  }
  if (header === null) throw bad(name, "has no header");
  return { header, data: parts.length === 1 ? parts[0] : new Uint8Array(Buffer.concat(parts)) };
}

const paeth = (a: number, b: number, c: number): number => {
  const p = a + b - c;
  const [pa, pb, pc] = [Math.abs(p - a), Math.abs(p - b), Math.abs(p - c)];
  return pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
};

/** Undoes a row's filter in place; `above` is the previous row, already decoded. */
function unfilter(
  row: Uint8Array,
  above: Uint8Array,
  { kind, step, name }: { kind: number; step: number; name: string },
): void {
  for (let i = 0; i < row.length; i++) {
    const left = i >= step ? row[i - step] : 0;
    const corner = i >= step ? above[i - step] : 0;
    if (kind === 1) row[i] += left;
    else if (kind === 2) row[i] += above[i];
    else if (kind === 3) row[i] += (left + above[i]) >> 1;
    else if (kind === 4) row[i] += paeth(left, above[i], corner);
    else if (kind !== 0) throw bad(name, "uses an unknown filter", kind);
  }
}

/**
 * Decodes an 8-bit PNG to RGB; alpha is dropped, grey is repeated. Shapes: pixels [height, width, 3].
 * Throws: E_FORMAT when it is not such a file or is damaged. Source: W3C PNG specification, third edition.
 */
export function decodePng(bytes: Uint8Array, name = "PNG"): { pixels: Uint8Array; width: number; height: number } {
  const { header, data } = readChunks(bytes, name);
  const { width, height, channels } = header;
  const stride = width * channels;
  let raw: Uint8Array;
  try {
    raw = inflateSync(data, { maxOutputLength: (stride + 1) * height });
  } catch (cause) {
    throw bad(name, `does not inflate: ${(cause as Error).message}`);
  }
  if (raw.length !== (stride + 1) * height) throw bad(name, "holds too few rows", raw.length);
  const pixels = new Uint8Array(width * height * 3);
  let above = new Uint8Array(stride);
  for (let y = 0; y < height; y++) {
    const at = y * (stride + 1);
    const row = raw.subarray(at + 1, at + 1 + stride) as Uint8Array<ArrayBuffer>;
    unfilter(row, above, { kind: raw[at], step: channels, name });
    above = row;
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < 3; c++) pixels[(y * width + x) * 3 + c] = row[x * channels + (channels < 3 ? 0 : c)];
    }
  }
  return { pixels, width, height };
}
