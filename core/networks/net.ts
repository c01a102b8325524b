import type { VelocityNet } from "../diffusion/predict.ts";
import type { WanConfig } from "../models/wan/config.ts";
import { WanGraph, type WanModel, type WanOptions } from "../models/wan/model.ts";
import { velocityNet } from "./build.ts";
import type { StreamedWeights } from "./streamed.ts";

/** A network that samples: its velocity, and what it may give back while others need the device. */
export interface SampleNet extends Disposable {
  readonly config: WanConfig;
  readonly velocity: VelocityNet;
  /** Gives device memory back that comes again by itself; nothing for weights that live on the device only. */
  release(): void;
}

/** Weights on the device for as long as the net is there. */
export function residentNet(model: WanModel, precision: "exact" | "bf16" = "exact"): SampleNet {
  return {
    config: model.config,
    velocity: velocityNet(model, precision),
    release() {},
    [Symbol.dispose]() {
      model.params.flat.free();
      model.params.device.lib.memoryTrim();
    },
  };
}

/** Blocks brought in from the host as they are needed. */
export function streamedNet(config: WanConfig, weights: StreamedWeights, options: WanOptions, precision: "exact" | "bf16" = "exact"): SampleNet {
  return {
    config,
    velocity: velocityNet(new WanGraph(config, weights, options), precision),
    release: () => weights.release(),
    [Symbol.dispose]: () => weights[Symbol.dispose](),
  };
}
