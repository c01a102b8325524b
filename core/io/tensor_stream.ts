import type { DType, HostTensor } from "../dtype.ts";

/** Bytes that are moved at a time; who compares digests reads in the same pieces. */
export const WINDOW = 1 << 25;

/** A tensor whose bytes a writer asks for once, when its turn comes; writers keep the order given. */
export interface TensorStream {
  name: string;
  dtype: DType;
  shape: readonly number[];
  /** Size of all chunks together. */
  bytes: number;
  /** Little-endian elements, row-major. A chunk is valid until the next one is asked for. */
  chunks(): Iterable<Uint8Array>;
}

export const hostStream = (name: string, t: HostTensor): TensorStream => ({
  name,
  dtype: t.dtype,
  shape: t.shape,
  bytes: t.data.length,
  chunks: () => [t.data],
});
