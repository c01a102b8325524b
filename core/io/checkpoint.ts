import type { DType } from "../dtype.ts";

/** A tensor as it lies in a file: a window of raw little-endian elements, row-major unless strides say otherwise. */
export interface StoredTensor {
  name: string;
  dtype: DType;
  shape: number[];
  file: string;
  /** First byte of the window, and its length. */
  offset: number;
  bytes: number;
  /** Element strides when not dense; the first element lies at `offset`. */
  strides?: number[];
}

/** A tensor that lies in pieces, each a block of the whole. */
export interface ShardedTensor {
  name: string;
  dtype: DType;
  shape: number[];
  bytes: number;
  parts: { /** Index of the block's first element. */ start: number[]; stored: StoredTensor }[];
}

export type Stored = StoredTensor | ShardedTensor;

export type CheckpointFormat = "safetensors" | "torch" | "torch-legacy" | "dcp";

/** The names of what a checkpoint holds; its data stay in the files. */
export interface Checkpoint {
  /** File or folder that was opened. */
  path: string;
  format: CheckpointFormat;
  tensors: ReadonlyMap<string, Stored>;
  metadata: Record<string, string>;
  /** Bytes of all tensors. */
  bytes: number;
}

export const isSharded = (t: Stored): t is ShardedTensor => "parts" in t;
