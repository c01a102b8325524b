import type { DType } from "../dtype.ts";
import type { ParamSet, ParamSpec } from "../nn/params.ts";
import type { Device, Tensor } from "../tensor.ts";
import type { StoredShapes } from "./family.ts";

export interface VaePassOptions {
  /** Side and overlap of tiles in latent cells; null: the whole picture at once. */
  tile?: { size: number; overlap: number } | null;
  /** Latent frames per chunk; default: by available memory. */
  chunk?: number | null;
}

/** An autoencoder of videos, frozen. */
export interface Vae {
  readonly device: Device;
  readonly params: ParamSet;
  /** Channels of a latent, and pixel frames, rows and columns per latent cell. */
  readonly channels: number;
  readonly strides: readonly [number, number, number];
  /** Storage of weights and activations. */
  readonly dtype: DType;
  /** Pixels to normalised latents. Shapes: video [B, 3, 1 + s n, Y, X] in [-1, 1] -> [B, C, 1 + n, Y/r, X/c]. */
  encode(video: Tensor, o?: VaePassOptions): Tensor;
  /**
   * Latents to pixels in chunks of frames; a chunk is freed when `sink` returns.
   * Shapes: latent [B, C, t, y, x]; sink gets [B, 3, frames, Y, X].
   */
  decode(latent: Tensor, sink: (frames: Tensor, first: number) => void, o?: VaePassOptions): void;
}

/** A family of autoencoders as data. */
export interface VaeFamily<C = unknown> {
  title: string;
  /** Sizes by name, the published one first. */
  presets: Readonly<Record<string, C>>;
  params(config: C): ParamSpec[];
  /** The canonical name of a key of any public layout; null: not a parameter of this family. */
  canonicalName(key: string): string | null;
  /** Whether keys belong to such an autoencoder, complete or not. */
  recognises(keys: Iterable<string>): boolean;
  /** Sizes from the shapes; null when there is no such autoencoder. */
  configOf(shapes: StoredShapes): C | null;
  /** Description of the required tensors, for error messages. */
  wanted: string;
  describe(config: C): string;
  create(device: Device, config: C, dtype: DType): Vae;
}
