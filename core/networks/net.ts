import type { Net, NetOptions, NetSpec } from "../models/family.ts";
import type { DrawNet } from "./draw.ts";
import { meanVelocityNet, velocityNet, type Network } from "./network.ts";
import type { StreamedWeights } from "./streamed.ts";

/** A network for sampling that can release device memory while other parts need it. */
export interface SampleNet extends DrawNet, Disposable {
  readonly spec: NetSpec;
  /** Frees streamed weights on the device, to be uploaded again when needed; does nothing for resident weights. */
  release(): void;
}

/** A network as samplers evaluate it. */
export const drawNet = (net: Net): DrawNet => ({
  velocity: velocityNet(net),
  meanVelocity: net.config.secondTime ? meanVelocityNet(net) : null,
});

/** A network whose weights stay on the device. */
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

/** A network whose blocks are streamed from the host. */
export function streamedNet(spec: NetSpec, weights: StreamedWeights, options: NetOptions): SampleNet {
  return {
    ...drawNet(spec.family.net(spec.config, weights, options)),
    spec,
    release: () => weights.release(),
    [Symbol.dispose]: () => weights[Symbol.dispose](),
  };
}
