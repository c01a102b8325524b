import type { Tensor } from "../tensor.ts";

/** A diffusion time: one for the whole batch, or one per sample (or per frame). */
export type RequestTime = number | Float64Array;

/** A network evaluation at a state x: velocity, clean latent x0, or mean velocity between t and r. */
export type SamplerRequest = {
  x: Tensor;
  /** Tensors besides x that the sampler uses after the reply; all others are freed. */
  keep?: readonly Tensor[];
} & (
  | { want: "velocity"; tRf: RequestTime }
  | { want: "clean"; tTrig: RequestTime }
  | { want: "mean velocity"; tRf: RequestTime; rRf: RequestTime }
);

/** From noise to a clean latent: yields the evaluations it needs, receives tensors of x's shape, returns the latent. */
export type Sampler = Generator<SamplerRequest, Tensor, Tensor>;

/** New noise for the k-th re-noising. */
export type Renoise = (k: number) => Tensor;
