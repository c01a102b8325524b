import type { Time } from "../diffusion/predict.ts";
import type { DType } from "../dtype.ts";
import type { ParamSource, ParamSpec } from "../nn/params.ts";
import type { CheckpointMode, Tape, Var } from "../tape.ts";
import type { Layout } from "./layout.ts";

/** What every network configuration says, whatever else its family adds. Configurations are plain JSON. */
export interface NetConfig {
  /** Model width D = heads * head width. */
  dim: number;
  heads: number;
  layers: number;
  /** Frames, rows and columns of a patch. */
  patch: readonly [number, number, number];
  /** Whether the network takes MeanFlow's second time, the interval's end r. */
  secondTime: boolean;
}

/** The latents that a network denoises. */
export interface LatentSpec {
  channels: number;
  /** Channels that the network sees: the latent's, and any condition's that is concatenated. */
  inputChannels: number;
  /** Pixel frames, rows and columns of a latent cell (the first frame of a video stands alone). */
  strides: readonly [number, number, number];
  /** The autoencoder that makes and decodes them, a key of VAES; null: the latents are pixels. */
  vae: string | null;
}

/** The text that a network is conditioned on. */
export interface TextSpec {
  /** A key of ENCODERS, or "bytes" for the byte-level encoder of small networks. */
  encoder: string;
  /** Width and number of the text tokens. */
  width: number;
  length: number;
}

/** What a parameter is for: LoRA and f8 want matrices, norms and modulation stay in high precision. */
export type ParamRole = "matrix" | "bias" | "norm" | "embed" | "modulation";

export interface NetParam extends ParamSpec {
  role: ParamRole;
  /** Index of the block it belongs to; null outside the blocks. */
  block: number | null;
}

export const TIME_PRECISIONS = ["exact", "bf16"] as const;
/** "bf16" rounds the network's time and its tangent, as the public code does. */
export type TimePrecision = (typeof TIME_PRECISIONS)[number];

export interface NetOptions {
  /** Storage of weights and of activations inside a block. */
  dtype: DType;
  /** Storage of the residual stream and its tangent; "f32" beside bf16 weights keeps the tangent exact enough. */
  residual: DType;
  checkpoint: CheckpointMode;
  time?: TimePrecision;
}

/** A network over some source of weights: one graph for value, tangent and gradient. */
export interface Net {
  readonly config: NetConfig;
  readonly options: NetOptions;
  /** RF times in the units that the network was trained with, rounded as `options.time` says. */
  netTime(tRf: Time): Time;
  /**
   * One evaluation; the tangent of the output is formed when x or a time carries one.
   * Shapes: x [B, T, C, Y, X], times [B] or one per frame [B * T], f64 (a second one for networks with secondTime),
   *   context [B, M, D] -> [B, T, C, Y, X].
   * Units: times as `netTime` gives them.
   */
  forward(tape: Tape, x: Var, times: readonly Var[], context: Var): Var;
}

/** Sizes that a recipe may override. */
export interface NetSizes {
  dim?: number;
  heads?: number;
  layers?: number;
  /** Hidden width of the feed-forward network. */
  ffnDim?: number;
  /** Latent channels in and out. */
  channels?: number;
  text?: { width: number; length: number };
}

/** A published network, or one of the small ones of this project. */
export interface Preset<C extends NetConfig = NetConfig> {
  config: C;
  /** Name in `rcm bench --model`; null: not measured there. */
  bench: string | null;
  /** A usual latent: channels, frames, rows, columns. */
  latent: readonly [number, number, number, number];
  /** "sample": only inference knows it. */
  use: "train" | "sample";
}

/** The videos that a family was trained on. */
export interface VideoSpec {
  /** Width and height by resolution and aspect. */
  sizes: Readonly<Record<string, Readonly<Record<string, readonly [number, number]>>>>;
  /** Frames that a student and a teacher draw when nothing is said. */
  frames: { student: number; teacher: number };
  /** Frames a second. */
  rate: number;
}

/** Shapes of stored tensors by the parameter's own name. */
export type StoredShapes = ReadonlyMap<string, { readonly shape: readonly number[] }>;

/** How a weight file has the patch embedding: as a convolution, or as the matrix that this program computes with. */
export const PATCH_FORMS = ["conv3d", "linear"] as const;
export type PatchForm = (typeof PATCH_FORMS)[number];

/** A family of networks as data: everything that the rest of the program asks about one. */
export interface Family<C extends NetConfig = NetConfig> {
  name: string;
  /** Name in messages. */
  title: string;
  presets: Readonly<Record<string, Preset<C>>>;
  video: VideoSpec | null;
  resize(config: C, sizes: NetSizes): C;
  latent(config: C): LatentSpec;
  text(config: C): TextSpec;
  /** Hidden width of the feed-forward network. */
  ffnDim(config: C): number;
  /** Every parameter under the family's own name, in forward order. */
  params(config: C): NetParam[];
  /** Role of a parameter by name, also of those that only some public files have. */
  roleOf(name: string): ParamRole;
  /** Block of a parameter by name; null outside the blocks. */
  blockOf(name: string): number | null;
  /** Parameters that a checkpoint may lack: they start so that the network computes what it does without them. */
  optional(name: string): boolean;
  net(config: C, params: ParamSource, options: NetOptions): Net;
  /** How public files spell the names, the family's own spelling first. */
  layouts: readonly Layout[];
  /**
   * The configuration of a stored network, from shapes; what they cannot say comes from `stated`, a config.json of any
   * program, and from the presets. Throws: E_FORMAT naming the tensor that does not fit.
   */
  configOf(shapes: StoredShapes, stated: Readonly<Record<string, unknown>>, path: string): C;
  /** The configuration as metadata of a weight file, and back; null when the metadata hold none. */
  note(config: C): Record<string, string>;
  noted(metadata: Readonly<Record<string, string>>): C | null;
  /** Fields of the config.json in a diffusers folder. Throws: E_ARG for a network that diffusers does not know. */
  diffusers(config: C, shapes: StoredShapes): Record<string, unknown>;
  /** The shape that a parameter is written with. */
  storedShape(name: string, shape: readonly number[], config: C | null, form: PatchForm): readonly number[];
}

/** A network by what it is: family and sizes, without weights. */
export interface NetSpec {
  family: Family;
  config: NetConfig;
  latent: LatentSpec;
  text: TextSpec;
}

export const netSpec = (family: Family, config: NetConfig): NetSpec => ({
  family,
  config,
  latent: family.latent(config),
  text: family.text(config),
});

/** Tokens of one latent. Shapes: latent [C, T, Y, X]. */
export const tokensOf = ({ patch }: NetConfig, [, T, Y, X]: readonly number[]): number =>
  (T * Y * X) / (patch[0] * patch[1] * patch[2]);
