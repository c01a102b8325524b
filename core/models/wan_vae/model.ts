import { dtypeBytes, type DType, type HostTensor } from "../../dtype.ts";
import { RcmError } from "../../error.ts";
import {
  affine,
  blendTile,
  fromChannelsLast,
  packConv,
  project,
  toChannelsLast,
  type Affine,
  type Window,
} from "../../ops/nondiff/video.ts";
import { ParamSet } from "../../nn/params.ts";
import { expectShape, statDType, type Device, type Tensor } from "../../tensor.ts";
import type { Vae, VaePassOptions } from "../vae.ts";
import { decoderLayers, encoderLayers, spaceFactor, timeFactor, type VaeLayer, type WanVaeConfig } from "./config.ts";
import { convsOf, vaeKeyToOriginal, wanVaeParams, type VaeConv } from "./keys.ts";
import { CausalStream } from "./stream.ts";
import { tiles, type Tile } from "./tiles.ts";

export interface WanVaeOptions {
  /** dtype of weights and activations. */
  dtype: DType;
}

/** Default bytes of one full-resolution activation of a chunk. */
const PIECE_BYTES = 2 ** 31;

/** Where a tile goes: its first frame, the pixels of a latent cell, and what to apply to its channels. */
interface Placement {
  first: number;
  scale: number;
  map: Affine | null;
}

/** Splits n into chunks of at most `size`, as equal as possible. */
function pieces(n: number, size: number): [from: number, count: number][] {
  const count = Math.ceil(n / size);
  return Array.from({ length: count }, (_, i) => [
    Math.floor((i * n) / count),
    Math.floor(((i + 1) * n) / count) - Math.floor((i * n) / count),
  ]);
}

/**
 * The Wan2.1 video autoencoder, frozen. Encoding and decoding run in chunks of frames, so that memory does not grow
 * with the length; results do not depend on the chunks.
 * Source: Wan2.1 technical report, section 4.1.
 */
export class WanVae implements Vae {
  constructor(
    readonly device: Device,
    readonly config: WanVaeConfig,
    readonly params: ParamSet,
    readonly options: WanVaeOptions,
  ) {}

  static create(device: Device, config: WanVaeConfig, options: WanVaeOptions): WanVae {
    return new WanVae(device, config, ParamSet.create(device, wanVaeParams(config), options.dtype, false), options);
  }

  get channels(): number {
    return this.config.zDim;
  }
  get strides(): readonly [number, number, number] {
    return [timeFactor(this.config), spaceFactor(this.config), spaceFactor(this.config)];
  }
  get dtype(): DType {
    return this.options.dtype;
  }

  /** Loads values by their keys in Wan2.1_VAE.pth or in diffusers' AutoencoderKLWan. Throws: E_STATE, E_SHAPE. */
  load(weights: ReadonlyMap<string, HostTensor>, what: string): void {
    this.params.load(new Map([...weights].map(([key, t]) => [vaeKeyToOriginal(key, this.config) ?? key, t])), what);
  }

  /**
   * Pixels to normalised latents (the mean, no noise).
   * Shapes: video [B, 3, 1 + 4n, Y, X] in [-1, 1] -> [B, z, 1 + n, Y/8, X/8] in f32 (f64 from f64 weights).
   * Throws: E_SHAPE.
   */
  encode(video: Tensor, { tile = null, chunk = null }: VaePassOptions = {}): Tensor {
    const { config: c, device } = this;
    const [space, time] = [spaceFactor(c), timeFactor(c)];
    expectShape("vae encode", "video", video, [-1, 3, -1, -1, -1]);
    const [B, , T, Y, X] = video.shape;
    if (T % time !== 1 % time || T < 1 || Y % space !== 0 || X % space !== 0) {
      throw new RcmError("E_SHAPE", "a video has 1 + a multiple of the time factor frames, and whole cells", {
        op: "vae encode",
        want: [`1 + n ${time}`, `n ${space}`, `n ${space}`],
        got: [T, Y, X],
      });
    }
    const [t, h, w] = [1 + (T - 1) / time, Y / space, X / space];
    const parts = tiles(h, w, tile);
    const out = this.canvas([B, c.zDim, t, h, w], parts);
    using _scope = device.scope();
    const map = affine(device, c.std.map((s) => 1 / s), c.mean.map((m, i) => -m / c.std[i]));
    const layers = encoderLayers(c);
    const packed = this.pack(layers);
    for (let b = 0; b < B; b++) {
      const [from, to] = [this.sample(video, b), this.sample(out, b)];
      for (const part of parts) {
        const stream = new CausalStream(layers, this.params, packed);
        try {
          for (const [first, count] of pieces(t, chunk ?? this.chunkFor(part))) {
            using _piece = device.scope();
            const [start, frames] = first === 0 ? [0, 1 + (count - 1) * time] : [1 + (first - 1) * time, count * time];
            const window: Window = {
              at: [start, part.y * space, part.x * space],
              size: [frames, part.h * space, part.w * space],
            };
            const x = toChannelsLast(from, window, this.pixelChannels, { dtype: this.dtype });
            const moments = project(
              stream.push(x),
              this.params.tensor("conv1.weight"),
              this.params.tensor("conv1.bias"),
              { dtype: out.dtype },
            );
            this.write(moments, to, part, { first, scale: 1, map });
          }
        } finally {
          stream.close();
        }
      }
    }
    return out;
  }

  /**
   * Normalised latents to pixels, passed to `sink` chunk by chunk and freed when it returns. Pixels are not clamped.
   * Shapes: latent [B, z, t, h, w]; `sink` gets [B, 3, frames, 8h, 8w] in f32 (f64) and the number of its first frame.
   * Throws: E_SHAPE.
   */
  decode(
    latent: Tensor,
    sink: (frames: Tensor, first: number) => void,
    { tile = null, chunk = null }: VaePassOptions = {},
  ): void {
    const { config: c, device } = this;
    const [space, time] = [spaceFactor(c), timeFactor(c)];
    expectShape("vae decode", "latent", latent, [-1, c.zDim, -1, -1, -1]);
    const [B, , t, h, w] = latent.shape;
    using _scope = device.scope();
    const map = affine(device, c.std, c.mean);
    const layers = decoderLayers(c);
    const packed = this.pack(layers);
    const parts = tiles(h, w, tile);
    const streams = Array.from({ length: B * parts.length }, () => new CausalStream(layers, this.params, packed));
    try {
      for (const [first, count] of pieces(t, chunk ?? this.chunkFor(parts[0]))) {
        using _piece = device.scope();
        const [start, frames] = first === 0 ? [0, 1 + (count - 1) * time] : [1 + (first - 1) * time, count * time];
        const out = this.canvas([B, 3, frames, h * space, w * space], parts);
        for (let b = 0; b < B; b++) {
          parts.forEach((part, i) => {
            using _part = device.scope();
            const window: Window = { at: [first, part.y, part.x], size: [count, part.h, part.w] };
            const z = toChannelsLast(this.sample(latent, b), window, c.zDim, { dtype: this.dtype, map });
            const x = project(z, this.params.tensor("conv2.weight"), this.params.tensor("conv2.bias"));
            const pixels = streams[b * parts.length + i].push(x);
            this.write(pixels, this.sample(out, b), part, { first: 0, scale: space, map: null });
          });
        }
        sink(out, start);
      }
    } finally {
      for (const s of streams) s.close();
    }
  }

  /** Output buffer; zeroed when tiles will be added to it. */
  private canvas(shape: number[], parts: readonly Tile[]): Tensor {
    const dtype = statDType(this.options.dtype);
    return parts[0].whole ? this.device.empty(shape, dtype) : this.device.zeros(shape, dtype);
  }

  /** Latent frames per chunk of a tile. */
  private chunkFor(part: Tile): number {
    const cell =
      spaceFactor(this.config) ** 2 * timeFactor(this.config) * this.config.dim * dtypeBytes(this.options.dtype);
    return Math.max(1, Math.round(PIECE_BYTES / (part.h * part.w * cell)));
  }

  /** Channels that pixels are padded to: the GPU kernels load at least 16 bytes. */
  private get pixelChannels(): number {
    return dtypeBytes(this.options.dtype) === 2 ? 8 : 3;
  }

  /** Weights packed for the kernels, for each pass again: the parameters may have changed. */
  private pack(layers: readonly VaeLayer[]): Map<string, Tensor> {
    const packed = (c: VaeConv): Tensor => {
      const channels = c.name === "encoder.conv1" ? this.pixelChannels : c.in;
      return packConv(this.params.tensor(`${c.name}.weight`), channels, {
        kernel: c.kt,
        side: c.k,
        upsample: c.upsample,
      });
    };
    return new Map(layers.flatMap(convsOf).map((c) => [c.name, packed(c)]));
  }

  private sample(t: Tensor, b: number): Tensor {
    const shape = t.shape.slice(1);
    return t.window((b * t.numel) / t.shape[0], shape);
  }

  /** Writes x [t, h, w, C'] to frames of y [C, T, Y, X]: a copy for the whole picture, blended for a tile. */
  private write(x: Tensor, y: Tensor, part: Tile, { first, scale, map }: Placement): void {
    if (part.whole) return fromChannelsLast(x, y, first, map);
    const [C, T, Y, X] = y.shape;
    const [t, h, w] = x.shape;
    const tile = x.device.empty([C, t, h, w], y.dtype);
    fromChannelsLast(x, tile, 0, map);
    const ramps = {
      top: part.top * scale,
      bottom: part.bottom * scale,
      left: part.left * scale,
      right: part.right * scale,
    };
    for (let c = 0; c < C; c++) {
      blendTile(
        tile.window(c * t * h * w, [t, h, w]),
        y.window((c * T + first) * Y * X, [t, Y, X]),
        [part.y * scale, part.x * scale],
        ramps,
      );
    }
  }
}
