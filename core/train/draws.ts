import { Rng, SAMPLE_STRIDE, streamOf, type RandomUse } from "../rng.ts";
import type { Tensor } from "../tensor.ts";

/**
 * Random numbers of one micro-batch. Every draw is keyed by a sample of the global batch, so an iteration draws the
 * same values however it is split into micro-batches.
 */
export class Draws {
  constructor(
    readonly seed: number,
    readonly step: number,
    /** Index of the micro-batch's first sample in the global batch. */
    readonly first: number,
  ) {}

  /** Stream of sample b of the micro-batch; `index` numbers draws of the same use. Throws: E_ARG out of KEY_RANGE. */
  stream(use: RandomUse, b: number, index = 0): number {
    return streamOf({ use, step: this.step, sample: this.first + b, index });
  }

  /** One number per sample, each from a separate generator. Shapes: -> [B]. */
  each(use: RandomUse, B: number, draw: (rng: Rng, b: number) => number, index = 0): Float64Array {
    return Float64Array.from({ length: B }, (_, b) => draw(new Rng(this.seed, this.stream(use, b, index)), b));
  }

  /** Noise in the shape and dtype of a latent. Shapes: like [B, ...] -> the same. */
  noise(use: RandomUse, like: Tensor, index = 0): Tensor {
    this.stream(use, Math.max(0, like.shape[0] - 1), index); // throws if the last sample's key is out of range
    const key = { seed: this.seed, stream: this.stream(use, 0, index), stride: SAMPLE_STRIDE };
    return like.device.randnRows(like.shape, like.dtype, key);
  }
}
