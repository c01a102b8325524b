import { dtypeBytes, numel, type DType, type HostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import type { Tensor } from "../tensor.ts";
import { copyStrided, denseStrides, isDense } from "./strided.ts";
import { withSource } from "./source.ts";

/** A tensor in a file: a window of raw little-endian elements, row-major unless it has strides. */
export interface StoredTensor {
  name: string;
  dtype: DType;
  shape: number[];
  file: string;
  /** First byte of the window, and its length. */
  offset: number;
  bytes: number;
  /** Element strides when not dense; the first element is at `offset`. */
  strides?: number[];
  /** Factor of f8 elements; 1 when absent. */
  scale?: number;
}

/** A tensor stored in blocks that together fill it exactly. */
export interface ShardedTensor {
  name: string;
  dtype: DType;
  shape: number[];
  bytes: number;
  parts: { /** Index of the block's first element. */ start: number[]; stored: StoredTensor }[];
}

export type Stored = StoredTensor | ShardedTensor;

export const isSharded = (t: Stored): t is ShardedTensor => "parts" in t;

/** Elements converted at a time when the stored dtype differs. */
const PIECE = 1 << 24;
/** Largest tensor that is assembled on the host. */
const MAX_HOST = 2 ** 31;

/**
 * Fills a device tensor from the file(s); the dtype is converted on the device, and any shape of the same count is
 * allowed. Dense windows are not copied through host memory of this process. Throws: E_SHAPE, E_DTYPE, E_IO naming the
 * file.
 */
export function readStored(t: Stored, into: Tensor): void {
  if (numel(t.shape) !== into.numel)
    throw new RcmError("E_SHAPE", `${t.name} does not fill its target`, {
      op: "checkpoint",
      want: into.shape,
      got: t.shape,
    });
  if (into.numel === 0) return;
  if (isSharded(t)) {
    if (t.parts.every((p) => isRun(p.stored.shape, t.shape))) {
      const strides = denseStrides(t.shape);
      for (const { start, stored } of t.parts)
        readStored(
          stored,
          into.window(
            start.reduce((at, s, i) => at + s * strides[i], 0),
            stored.shape,
          ),
        );
    } else into.setHost(readHost(t));
  } else if (t.strides) into.setHost(readHost(t));
  else if (t.dtype === into.dtype) into.setFile(t.file, t.offset);
  else {
    const { device } = into;
    using _scope = device.scope();
    const each = dtypeBytes(t.dtype);
    const buffer = device.empty([Math.min(PIECE, into.numel)], t.dtype);
    for (let at = 0; at < into.numel; at += PIECE) {
      const n = Math.min(PIECE, into.numel - at);
      const piece = buffer.window(0, [n]).setFile(t.file, t.offset + at * each);
      into.window(at, [n]).set(piece, t.scale);
    }
  }
}

/** Whether a block is contiguous in the whole tensor: it spans every axis after the first longer than one. */
function isRun(block: readonly number[], whole: readonly number[]): boolean {
  const cut = block.findIndex((d) => d !== 1);
  return cut < 0 || block.every((d, i) => i <= cut || d === whole[i]);
}

/**
 * Reads a stored tensor into dense host memory, without applying a scale. Throws: E_IO, E_FORMAT when it is too large.
 */
export function readHost(t: Stored): HostTensor {
  const each = dtypeBytes(t.dtype);
  const size = numel(t.shape) * each;
  if (size > MAX_HOST || t.bytes > MAX_HOST)
    throw new RcmError("E_FORMAT", `${t.name} is too large to be put together on the host`, {
      op: "checkpoint",
      want: `at most ${MAX_HOST} bytes`,
      got: Math.max(size, t.bytes),
    });
  if (!isSharded(t) && !t.strides) return { dtype: t.dtype, shape: t.shape, data: windowBytes(t) };
  const data = new Uint8Array(new ArrayBuffer(size));
  const to = denseStrides(t.shape);
  for (const { start, stored } of isSharded(t) ? t.parts : [{ start: t.shape.map(() => 0), stored: t }]) {
    const first = start.reduce((at, s, i) => at + s * to[i], 0);
    copyStrided(
      { data: windowBytes(stored), strides: stored.strides ?? denseStrides(stored.shape) },
      { data: data.subarray(first * each), strides: to },
      stored.shape,
      each,
    );
  }
  return { dtype: t.dtype, shape: t.shape, data };
}

const windowBytes = (t: StoredTensor): Uint8Array =>
  withSource(t.file, (source) => {
    if (t.offset + t.bytes > source.size)
      throw new RcmError("E_IO", `${t.file} ends at byte ${source.size}`, {
        op: "checkpoint",
        want: `${t.bytes} bytes from byte ${t.offset} on`,
      });
    return source.read(t.offset, t.bytes);
  });

/** A stored tensor from a window in a torch file. */
export function storedTensor(
  name: string,
  file: string,
  w: { dtype: DType; shape: number[]; offset: number; bytes: number; strides?: number[] },
): StoredTensor {
  const { dtype, shape, offset, bytes, strides } = w;
  return { name, dtype, shape, file, offset, bytes, ...(strides && !isDense(shape, strides) ? { strides } : {}) };
}
