import type { Time } from "../diffusion/predict.ts";
import type { DType } from "../dtype.ts";
import type { ParamSource, ParamSpec } from "../nn/params.ts";
import type { CheckpointMode, Tape, Var } from "../tape.ts";
import type { Layout } from "./layout.ts";

/** Fields of every network configuration; a family adds others. Configurations are plain JSON. */
export interface NetConfig {
  /** Model width D = heads * head width. */
  dim: number;
  heads: number;
  layers: number;
  /** Frames, rows and columns of a patch. */
  patch: readonly [number, number, number];
  /** Whether the network is conditioned on MeanFlow's second time r. */
  secondTime: boolean;
}

/** The latents that a network denoises. */
export interface LatentSpec {
  channels: number;
  /** Input channels: those of the latent and of any concatenated condition. */
  inputChannels: number;
  /** Pixel frames, rows and columns per latent cell; the first latent frame is a single pixel frame. */
  strides: readonly [number, number, number];
  /** Their autoencoder, a key of VAES; null: the latents are pixels. */
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

/** Kind of a parameter. LoRA and f8 apply to matrices; norms and modulation stay in high precision. */
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
  /** Storage of the residual stream and its tangent; "f32" with bf16 weights keeps the tangent accurate. */
  residual: DType;
  checkpoint: CheckpointMode;
  time?: TimePrecision;
}

/** A network over a source of weights: one graph for value, tangent and gradient. */
export interface Net {
  readonly config: NetConfig;
  readonly options: NetOptions;
  /** RF times in the units that the network was trained with, rounded as `options.time` says. */
  netTime(tRf: Time): Time;
  /**
   * One evaluation; the output has a tangent when x or a time has one.
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

/** A published network, or a small one of this project. */
export interface Preset<C extends NetConfig = NetConfig> {
  config: C;
  /** Name in `rcm bench --model`; null: not measured there. */
  bench: string | null;
  /** A typical latent: channels, frames, rows, columns. */
  latent: readonly [number, number, number, number];
  /** "sample": for inference only. */
  use: "train" | "sample";
}

/** The videos that a family was trained on. */
export interface VideoSpec {
  /** Width and height by resolution and aspect. */
  sizes: Readonly<Record<string, Readonly<Record<string, readonly [number, number]>>>>;
  /** Default number of frames that a student and a teacher sample. */
  frames: { student: number; teacher: number };
  /** Frames per second. */
  rate: number;
}

/** Shapes of stored tensors by canonical parameter name. */
export type StoredShapes = ReadonlyMap<string, { readonly shape: readonly number[] }>;

/** How a weight file stores the patch embedding: as a convolution, or as the matrix that this program uses. */
export const PATCH_FORMS = ["conv3d", "linear"] as const;
export type PatchForm = (typeof PATCH_FORMS)[number];

/** A family of networks as data: everything that the rest of the program needs to know about it. */
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
  /** Every parameter by its canonical name, in forward order. */
  params(config: C): NetParam[];
  /** Role of a parameter by name, including parameters that only some public files have. */
  roleOf(name: string): ParamRole;
  /** Block of a parameter by name; null outside the blocks. */
  blockOf(name: string): number | null;
  /** Parameters that a checkpoint may lack: their initial values do not change the output. */
  optional(name: string): boolean;
  net(config: C, params: ParamSource, options: NetOptions): Net;
  /** Naming schemes of public files, the canonical one first. */
  layouts: readonly Layout[];
  /**
   * The configuration of a stored network from its shapes; what shapes do not determine comes from `stated`, the
   * contents of a config.json of any program, and from the presets.
   * Throws: E_FORMAT naming the tensor that does not fit.
   */
  configOf(shapes: StoredShapes, stated: Readonly<Record<string, unknown>>, path: string): C;
  /** The configuration as metadata of a weight file, and back; null when the metadata have none. */
  note(config: C): Record<string, string>;
  noted(metadata: Readonly<Record<string, string>>): C | null;
  /** Fields of the config.json in a diffusers folder. Throws: E_ARG for a network that diffusers does not know. */
  diffusers(config: C, shapes: StoredShapes): Record<string, unknown>;
  /** The shape that a parameter is written with. */
  storedShape(name: string, shape: readonly number[], config: C | null, form: PatchForm): readonly number[];
}

/** Architecture of a network, without weights. */
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
