import type { VelocityNet } from "../diffusion/predict.ts";
import type { NetOptions, NetSpec } from "../models/family.ts";
import { velocityNet, type Network } from "./network.ts";
import type { StreamedWeights } from "./streamed.ts";

/** A network that samples: its velocity, and what it may give back while others need the device. */
export interface SampleNet extends Disposable {
  readonly spec: NetSpec;
  readonly velocity: VelocityNet;
  /** Gives device memory back that comes again by itself; nothing for weights that live on the device only. */
  release(): void;
}

/** Weights on the device for as long as the net is open. */
export function residentNet(network: Network): SampleNet {
  return {
    spec: network.spec,
    velocity: velocityNet(network),
    release() {},
    [Symbol.dispose]() {
      network[Symbol.dispose]();
      network.params.device.trim();
    },
  };
}

/** Blocks brought in from the host as they are needed. */
export function streamedNet(spec: NetSpec, weights: StreamedWeights, options: NetOptions): SampleNet {
  return {
    spec,
    velocity: velocityNet(spec.family.net(spec.config, weights, options)),
    release: () => weights.release(),
    [Symbol.dispose]: () => weights[Symbol.dispose](),
  };
}
