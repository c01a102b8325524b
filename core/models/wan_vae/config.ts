/** Hyper-parameters of the Wan2.1 video autoencoder. */
export interface WanVaeConfig {
  /** Channels at full resolution. */
  dim: number;
  /** Latent channels. */
  zDim: number;
  /** Channel multiplier of each level; every level after the first halves rows and columns. */
  mult: readonly number[];
  /** Residual blocks per level of the encoder; the decoder has one more. */
  resBlocks: number;
  /** Whether each resampling between levels, in encoder order, also halves the frames. */
  temporal: readonly boolean[];
  /** Per latent channel: the normalised latent is (mu - mean) / std. */
  mean: readonly number[];
  std: readonly number[];
}

export const WAN_VAE: WanVaeConfig = {
  dim: 96,
  zDim: 16,
  mult: [1, 2, 4, 4],
  resBlocks: 2,
  temporal: [false, true, true],
  mean: [
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517, -0.3632, -0.1922,
    -0.9497, 0.2503, -0.2921,
  ],
  std: [
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253,
    2.8251, 1.916,
  ],
};

/** One layer of encoder or decoder under its checkpoint name. `temporal`: the resampling changes the frames too. */
export type VaeLayer =
  | { kind: "conv"; name: string; in: number; out: number }
  | { kind: "residual"; name: string; in: number; out: number }
  | { kind: "attention"; name: string; dim: number }
  | { kind: "down"; name: string; dim: number; temporal: boolean }
  | { kind: "up"; name: string; dim: number; temporal: boolean }
  | { kind: "head"; name: string; in: number; out: number };

const middle = (name: string, dim: number): VaeLayer[] => [
  { kind: "residual", name: `${name}.middle.0`, in: dim, out: dim },
  { kind: "attention", name: `${name}.middle.1`, dim },
  { kind: "residual", name: `${name}.middle.2`, in: dim, out: dim },
];

export function encoderLayers(c: WanVaeConfig): VaeLayer[] {
  const dims = [1, ...c.mult].map((m) => m * c.dim);
  const layers: VaeLayer[] = [{ kind: "conv", name: "encoder.conv1", in: 3, out: dims[0] }];
  let n = 0;
  const name = (): string => `encoder.downsamples.${n++}`;
  for (let level = 0; level < c.mult.length; level++) {
    const out = dims[level + 1];
    for (let i = 0; i < c.resBlocks; i++) {
      layers.push({ kind: "residual", name: name(), in: i === 0 ? dims[level] : out, out });
    }
    if (level + 1 < c.mult.length) layers.push({ kind: "down", name: name(), dim: out, temporal: c.temporal[level] });
  }
  const top = dims[dims.length - 1];
  return [...layers, ...middle("encoder", top), { kind: "head", name: "encoder.head", in: top, out: 2 * c.zDim }];
}

export function decoderLayers(c: WanVaeConfig): VaeLayer[] {
  const dims = [c.mult[c.mult.length - 1], ...[...c.mult].reverse()].map((m) => m * c.dim);
  const temporal = [...c.temporal].reverse();
  const layers: VaeLayer[] = [
    { kind: "conv", name: "decoder.conv1", in: c.zDim, out: dims[0] },
    ...middle("decoder", dims[0]),
  ];
  let n = 0;
  const name = (): string => `decoder.upsamples.${n++}`;
  for (let level = 0; level < c.mult.length; level++) {
    const out = dims[level + 1];
    // The upsampling into a level outputs half of the channels.
    const first = level === 0 ? dims[0] : dims[level] / 2;
    for (let i = 0; i <= c.resBlocks; i++) {
      layers.push({ kind: "residual", name: name(), in: i === 0 ? first : out, out });
    }
    if (level + 1 < c.mult.length) layers.push({ kind: "up", name: name(), dim: out, temporal: temporal[level] });
  }
  return [...layers, { kind: "head", name: "decoder.head", in: dims[dims.length - 1], out: 3 }];
}

/** Pixels per latent cell along rows and columns, and frames per latent frame after the first. */
export const spaceFactor = (c: WanVaeConfig): number => 2 ** (c.mult.length - 1);
export const timeFactor = (c: WanVaeConfig): number => 2 ** c.temporal.filter(Boolean).length;
