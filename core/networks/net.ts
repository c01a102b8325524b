import type { Net, NetOptions, NetSpec } from "../models/family.ts";
import type { DrawNet } from "./draw.ts";
import { meanVelocityNet, velocityNet, type Network } from "./network.ts";
import type { StreamedWeights } from "./streamed.ts";

/** A network that samples: its answers, and what it may give back while others need the device. */
export interface SampleNet extends DrawNet, Disposable {
  readonly spec: NetSpec;
  /** Gives device memory back that comes again by itself; nothing for weights that live on the device only. */
  release(): void;
}

/** A network as samplers ask for it. */
export const drawNet = (net: Net): DrawNet => ({
  velocity: velocityNet(net),
  meanVelocity: net.config.secondTime ? meanVelocityNet(net) : null,
});

/** Weights on the device for as long as the net is open. */
export function residentNet(network: Network): SampleNet {
  return {
    ...drawNet(network),
    spec: network.spec,
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
    ...drawNet(spec.family.net(spec.config, weights, options)),
    spec,
    release: () => weights.release(),
    [Symbol.dispose]: () => weights[Symbol.dispose](),
  };
}
