import type { Sampler, SamplerRequest } from "../../core/samplers/sampler.ts";
import type { Tensor } from "../../core/tensor.ts";

/** A field in the two forms that samplers of one time ask for. */
export interface Answers {
  velocity?: (x: Tensor, tRf: number) => Tensor;
  clean?: (x: Tensor, tTrig: number) => Tensor;
}

type Seen = (request: SamplerRequest) => void;

/** Runs a sampler against plain functions. `seen` is given each request, whose x are the states of the trajectory. */
export function answered(sampler: Sampler, { velocity, clean }: Answers, seen: Seen = () => {}): Tensor {
  let step = sampler.next();
  while (!step.done) {
    const r = step.value;
    seen(r);
    if (r.want === "velocity" && velocity) step = sampler.next(velocity(r.x, r.tRf as number));
    else if (r.want === "clean" && clean) step = sampler.next(clean(r.x, r.tTrig as number));
    else throw new Error(`a request that was not expected: ${r.want}`);
  }
  return step.value;
}
