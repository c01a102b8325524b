import { SAMPLE_STRIDE, setSampleKey, streamOf } from "../rng.ts";
import type { Device, Tensor } from "../tensor.ts";

/** What the noise of one sample depends on, however samples are batched. */
export interface NoiseKey {
  seed: number;
  /** Number of the sample in the whole set. */
  index: number;
}

/** Keys of `count` samples of one seed from number `first` on. */
export const noiseKeys = (seed: number, first: number, count: number): NoiseKey[] =>
  Array.from({ length: count }, (_, b) => ({ seed, index: first + b }));

/**
 * Standard normal latents, one stream per sample; `draw` 0 is the initial noise, k + 1 the k-th re-noising.
 * Shapes: -> [B, ...shape] f32.
 */
export function sampleNoise(device: Device, shape: readonly number[], keys: readonly NoiseKey[], draw: number): Tensor {
  const whole = [keys.length, ...shape];
  const stream = (index: number): number => streamOf(setSampleKey(index, draw));
  const [first] = keys;
  if (keys.every(({ seed, index }, b) => seed === first.seed && index === first.index + b)) {
    return device.randnRows(whole, "f32", { seed: first.seed, stream: stream(first.index), stride: SAMPLE_STRIDE });
  }
  const out = device.empty(whole, "f32");
  const each = out.numel / keys.length;
  keys.forEach(({ seed, index }, b) => out.window(b * each, [each]).setRandn(seed, stream(index)));
  return out;
}
