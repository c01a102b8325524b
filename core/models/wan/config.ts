import type { NetConfig, Preset, VideoSpec } from "../family.ts";

/** Hyper-parameters of a Wan2.1 text-to-video DiT. */
export interface WanConfig extends NetConfig {
  /** Hidden width F of the feed-forward network. */
  ffnDim: number;
  /** Latent channels in and out. */
  inDim: number;
  outDim: number;
  /** Width of the sinusoidal time embedding. */
  freqDim: number;
  /** Width and number of the text tokens. */
  textDim: number;
  textLen: number;
  eps: number;
  /** Time units of the network per rectified-flow time in [0, 1]. */
  timeScale: number;
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

/** Published sizes, and that of the digits recipes: the same network, smaller. */
export const WAN_PRESETS = {
  "wan2.1-1.3b": { ...WAN, dim: 1536, heads: 12, layers: 30, ffnDim: 8960 },
  "wan2.1-14b": { ...WAN, dim: 5120, heads: 40, layers: 40, ffnDim: 13824 },
  "wan-digits": {
    ...WAN,
    dim: 128,
    heads: 4,
    layers: 4,
    ffnDim: 512,
    inDim: 1,
    outDim: 1,
    patch: [1, 4, 4],
    freqDim: 64,
    textDim: 32,
    textLen: 24,
  },
} as const satisfies Record<string, WanConfig>;

/**
 * One of the two experts of Wan2.2 I2V, for inference only: its input has 16 channels of noise, 4 of mask and 16 of the
 * picture's latent.
 */
const WAN_I2V_A14B: WanConfig = { ...WAN_PRESETS["wan2.1-14b"], inDim: 36 };

const VIDEO = [16, 20, 60, 104] as const;

/** Every preset with a typical latent: 77 frames of 480x832, or one digit. */
export const PRESETS: Readonly<Record<string, Preset<WanConfig>>> = {
  "wan2.1-1.3b": { config: WAN_PRESETS["wan2.1-1.3b"], bench: "wan-1.3b", latent: VIDEO, use: "train" },
  "wan2.1-14b": { config: WAN_PRESETS["wan2.1-14b"], bench: "wan-14b", latent: VIDEO, use: "train" },
  "wan-digits": { config: WAN_PRESETS["wan-digits"], bench: "wan-digits", latent: [1, 1, 28, 28], use: "train" },
  "wan2.2-i2v-a14b": { config: WAN_I2V_A14B, bench: null, latent: VIDEO, use: "sample" },
};

/** Sizes that Wan2.1 was trained at, width then height. Source: public rCM code. */
export const WAN_VIDEO: VideoSpec = {
  sizes: {
    "480p": { "16:9": [832, 480], "9:16": [480, 832], "1:1": [640, 640], "4:3": [640, 480], "3:4": [480, 640] },
    "720p": { "16:9": [1280, 720], "9:16": [720, 1280], "1:1": [960, 960], "4:3": [960, 720], "3:4": [720, 960] },
  },
  frames: { student: 77, teacher: 81 },
  rate: 16,
};
