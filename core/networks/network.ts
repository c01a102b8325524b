import type { Time, VelocityNet } from "../diffusion/predict.ts";
import type { DType, HostTensor } from "../dtype.ts";
import type { MeanVelocityNet } from "../losses/meanflow.ts";
import type { Net, NetOptions, NetSpec } from "../models/family.ts";
import { ParamSet } from "../nn/params.ts";
import type { Device, Tensor } from "../tensor.ts";
import { constant, type Tape, type Var } from "../tape.ts";

/** A network whose parameters are all on the device. */
export class Network implements Net, Disposable {
  private readonly net: Net;

  constructor(
    readonly spec: NetSpec,
    readonly params: ParamSet,
    readonly options: NetOptions,
  ) {
    this.net = spec.family.net(spec.config, params, options);
  }

  /** Allocates the parameters, zero filled, in `options.dtype`; `gradients` as in ParamSet.create. */
  static create(device: Device, spec: NetSpec, options: NetOptions, gradients: boolean | Tensor = false): Network {
    return new Network(
      spec,
      ParamSet.create(device, spec.family.params(spec.config), options.dtype, gradients),
      options,
    );
  }

  get config(): NetSpec["config"] {
    return this.spec.config;
  }

  netTime(tRf: Time): Time {
    return this.net.netTime(tRf);
  }

  forward(tape: Tape, x: Var, times: readonly Var[], context: Var): Var {
    return this.net.forward(tape, x, times, context);
  }

  /** The same network with other weights of the same layout, such as an EMA; frozen. */
  withWeights(flat: Tensor): Network {
    return new Network(this.spec, this.params.over(flat), { ...this.options, dtype: flat.dtype });
  }

  /** The same weights, frozen, with activations, residual stream and tangents in another dtype. */
  withActivations(dtype: DType): Network {
    return new Network(this.spec, this.params, { ...this.options, dtype, residual: dtype, checkpoint: "block" });
  }

  /** Loads values by canonical name. Throws: E_STATE, E_SHAPE. */
  load(weights: ReadonlyMap<string, HostTensor>, what: string): void {
    this.params.load(weights, what);
  }

  [Symbol.dispose](): void {
    this.params[Symbol.dispose]();
  }
}

/** A time on the device. Shapes: [B] f64, and its tangent. */
function timeVar(device: Device, { t, dot }: Time): Var {
  if (!dot) return constant(device.fromValues(t, [t.length], "f64"));
  const both = device.fromValues([...t, ...dot], [2, t.length], "f64");
  return constant(both.window(0, [t.length]), both.window(t.length, [t.length]));
}

/** A network as a rectified-flow velocity; one with a second time is evaluated at r = t (instantaneous velocity). */
export const velocityNet = (net: Net): VelocityNet => (tape, x, tRf, condition) => {
  const t = timeVar(tape.device, net.netTime(tRf));
  return net.forward(tape, x, net.config.secondTime ? [t, t] : [t], constant(condition));
};

/** A network with a second time as MeanFlow's average velocity u(x, t, r). */
export const meanVelocityNet = (net: Net): MeanVelocityNet => (tape, x, t, r, condition) =>
  net.forward(tape, x, [t, r].map((time) => timeVar(tape.device, net.netTime(time))), constant(condition));
