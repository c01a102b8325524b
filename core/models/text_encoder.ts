import type { DType } from "../dtype.ts";
import type { ParamSet, ParamSpec } from "../nn/params.ts";
import type { Device, Tensor } from "../tensor.ts";
import type { StoredShapes } from "./family.ts";

/** Rows of every embedding in the public data sets, after padding. */
export const TEXT_LENGTH = 512;

/** A text encoder, frozen. */
export interface TextEncoderNet extends Disposable {
  readonly params: ParamSet;
  readonly config: { readonly dim: number; readonly vocab: number };
  /** Keys from lengths[b] on are masked (null: none). Shapes: ids i32 [B, L], lengths i32 [B] -> [B, L, D]. */
  forward(ids: Tensor, lengths: Tensor | null): Tensor;
}

/** An encoder among the keys of a file: its layout and the key of every parameter. */
export interface EncoderKeys {
  layout: string;
  /** Keys by canonical name. */
  names: ReadonlyMap<string, string>;
  /** Keys that are no parameters of the encoder. */
  unexpected: string[];
}

/** A family of text encoders as data. */
export interface EncoderFamily<C extends { dim: number; vocab: number } = { dim: number; vocab: number }> {
  title: string;
  params(config: C): ParamSpec[];
  /** Null when the keys are not this encoder's. */
  keysIn(keys: Iterable<string>): EncoderKeys | null;
  /** Throws: E_FORMAT when the shapes are not this encoder's. */
  configOf(shapes: StoredShapes, path: string): C;
  describe(config: C): string;
  create(device: Device, config: C, o: { dtype: DType; residual?: DType }): TextEncoderNet;
  /** File name under which public code looks for the embedding of the negative prompt. */
  negativeFile: string;
}
