/** Hyper-parameters of a Wan2.1 text-to-video DiT. */
export interface WanConfig {
  /** Model width D = heads * head width. */
  dim: number;
  heads: number;
  layers: number;
  /** Hidden width F of the feed-forward network. */
  ffnDim: number;
  /** Latent channels in and out. */
  inDim: number;
  outDim: number;
  /** Frames, rows and columns of a patch. */
  patch: readonly [number, number, number];
  /** Width of the sinusoidal time embedding. */
  freqDim: number;
  /** Width and number of the text tokens. */
  textDim: number;
  textLen: number;
  eps: number;
  /** Time units of the network per rectified-flow time in [0, 1]. */
  timeScale: number;
  /** A second time embedding for MeanFlow's interval end r (added to the first before modulation). */
  secondTime: boolean;
}

const WAN: Omit<WanConfig, "dim" | "heads" | "layers" | "ffnDim"> = {
  inDim: 16,
  outDim: 16,
  patch: [1, 2, 2],
  freqDim: 256,
  textDim: 4096,
  textLen: 512,
  eps: 1e-6,
  timeScale: 1000,
  secondTime: false,
};

/** Published sizes, and the one of the digits recipes: the same network with small numbers. */
export const WAN_PRESETS = {
  "wan2.1-1.3b": { ...WAN, dim: 1536, heads: 12, layers: 30, ffnDim: 8960 },
  "wan2.1-14b": { ...WAN, dim: 5120, heads: 40, layers: 40, ffnDim: 13824 },
  "wan-digits": { ...WAN, dim: 128, heads: 4, layers: 4, ffnDim: 512, inDim: 1, outDim: 1, patch: [1, 4, 4], freqDim: 64, textDim: 32, textLen: 24 },
} as const satisfies Record<string, WanConfig>;

/** One of the two experts of Wan2.2 I2V: sees 16 channels of noise, 4 of mask and 16 of the picture's latent. Inference only. */
export const WAN_I2V_A14B: WanConfig = { ...WAN_PRESETS["wan2.1-14b"], inDim: 36 };

export type WanPreset = keyof typeof WAN_PRESETS;
