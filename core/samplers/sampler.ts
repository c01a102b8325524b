import type { Tensor } from "../tensor.ts";

/** A time of a request: one number for the whole batch, or a value per sample (per frame, where frames have times). */
export type RequestTime = number | Float64Array;

/** What a sampler asks of the network at a state x: its velocity, the clean latent, or its mean velocity from t to r. */
export type SamplerRequest =
  & {
    x: Tensor;
    /** States besides x that the sampler needs after the answer; everything else that it made is freed. */
    keep?: readonly Tensor[];
  }
  & (
    | { want: "velocity"; tRf: RequestTime }
    | { want: "clean"; tTrig: RequestTime }
    | { want: "mean velocity"; tRf: RequestTime; rRf: RequestTime }
  );

/** A run from noise to a clean latent: yields requests, is answered with tensors shaped as x, returns the latent. */
export type Sampler = Generator<SamplerRequest, Tensor, Tensor>;

/** Fresh noise of the k-th re-noising. */
export type Renoise = (k: number) => Tensor;
