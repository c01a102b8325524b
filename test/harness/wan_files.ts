import { hostTensor, numel, type HostTensor } from "../../core/dtype.ts";
import { writeSafetensors } from "../../core/io/safetensors.ts";
import type { WanConfig } from "../../core/models/wan/config.ts";
import { wanParams } from "../../core/models/wan/params.ts";
import { Rng } from "../../core/rng.ts";

/**
 * A Wan network small enough for tests whose heads are as wide as the real ones, so that its sizes follow from its
 * shapes.
 */
export const TINY_WAN: WanConfig = {
  dim: 256, heads: 2, layers: 2, ffnDim: 320, inDim: 16, outDim: 16, patch: [1, 2, 2], freqDim: 32, textDim: 48,
  textLen: 512, eps: 1e-6, timeScale: 1000, secondTime: false,
};

/**
 * Random weights of a configuration by original names, f32; every value is a multiple of 2^-12 below 2, so small sums
 * are exact.
 */
export function tinyWeights(seed: number, config: WanConfig = TINY_WAN): Map<string, HostTensor> {
  const rng = new Rng(seed, 17);
  return new Map(
    wanParams(config).map(({ name, shape }) => [
      name,
      hostTensor(
        "f32",
        [...shape],
        Float64Array.from({ length: numel(shape) }, () => (rng.below(8192) - 4096) / 2 ** 12),
      ),
    ]),
  );
}

export function writeWeights(path: string, weights: ReadonlyMap<string, HostTensor>): string {
  writeSafetensors(path, weights);
  return path;
}
