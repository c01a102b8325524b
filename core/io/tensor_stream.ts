import type { DType, HostTensor } from "../dtype.ts";

/** Bytes copied at a time; digests are computed over pieces of this size. */
export const WINDOW = 1 << 25;

/** A tensor whose bytes a writer reads once; writers keep the given order. */
export interface TensorStream {
  name: string;
  dtype: DType;
  shape: readonly number[];
  /** Size of all chunks together. */
  bytes: number;
  /** Little-endian elements, row-major. A chunk is valid until the next one is read. */
  chunks(): Iterable<Uint8Array>;
}

export const hostStream = (name: string, t: HostTensor): TensorStream => ({
  name,
  dtype: t.dtype,
  shape: t.shape,
  bytes: t.data.length,
  chunks: () => [t.data],
});
