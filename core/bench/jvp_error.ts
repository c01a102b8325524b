import { hostTensor, numel, type DType } from "../dtype.ts";
import { swappedShape } from "../data/latents.ts";
import { netSpec, type NetConfig, type NetParam, type NetSpec } from "../models/family.ts";
import { Network } from "../networks/network.ts";
import { Rng } from "../rng.ts";
import { Device, sampleReduce, type Tensor } from "../tensor.ts";
import { constant, Tape, type CheckpointMode, type Var } from "../tape.ts";
import { fillNoise, noise, relativeL2, type BenchRow } from "./time.ts";

export interface JvpErrorOptions {
  /** The network is this one with its widths cut to `dim`: heads keep their width where they can. */
  spec: NetSpec;
  layers: number;
  dim: number;
  /** Channels, frames, rows, columns. */
  latent: readonly number[];
  dtype: DType;
  residual: DType;
  /** Activations in f32-grade arithmetic (rcm_f32_products) over weights of `dtype`. */
  precise: boolean;
}

/** Keeps the value and tangent of every block of the network. */
class Spy extends Tape {
  readonly seen: { y: Float64Array; dot: Float64Array | null }[] = [];
  override block(mode: CheckpointMode, body: (tape: Tape, inputs: Var[]) => Var, inputs: Var[]): Var {
    const out = super.block(mode, body, inputs);
    this.seen.push({ y: out.x.values(), dot: out.dot?.values() ?? null });
    return out;
  }
}

function small({ family, config: c, text }: NetSpec, dim: number, layers: number): NetSpec {
  const width = Math.min(c.dim / c.heads, dim);
  const ffnDim = Math.round((dim * family.ffnDim(c)) / c.dim / 8) * 8;
  const short = { width: Math.min(text.width, 64), length: Math.min(text.length, 77) };
  return netSpec(family, family.resize(c, { dim, heads: dim / width, layers, ffnDim, text: short }));
}

const normals = (n: number, stream: number, std = 1): Float64Array => {
  const rng = new Rng(3, stream);
  return Float64Array.from({ length: n }, () => std * rng.normal());
};

const spread = ({ role, shape }: NetParam): number =>
  role === "modulation" ? 0.3 : shape.length === 2 ? 1 / Math.sqrt(shape[1]) : 0.05;

/** Weights at which every layer matters: fan-in scaled linears (the head too), modulation of 0.3, norms around 1. */
function weights({ family, config }: NetSpec, device: Device, dtype: DType): Map<string, Float64Array> {
  return new Map(
    family.params(config).map((spec, i) => {
      const { name, shape, init } = spec;
      const drawn = normals(numel(shape), 100 + i, spread(spec));
      // Rounded to the storage type first, so that only the arithmetic is judged and not the rounding of the weights.
      return [
        name,
        device.fromValues(init.kind === "ones" ? drawn.map((v) => 1 + v) : drawn, [...shape], dtype).values(),
      ] as const;
    }),
  );
}

// A tangent of time of a few units moves the time embedding about as much as the tangent of x moves the patches.
const timeOf = (device: Device): Var =>
  constant(device.fromValues([600], [1], "f64"), device.fromValues([2], [1], "f64"));

// The network's blocks are the patch embedding, the text embedding (no tangent), the blocks proper, the head.
const namesOf = (config: NetConfig): string[] => [
  "patch embedding",
  "text embedding",
  ...Array.from({ length: config.layers }, (_, i) => `after block ${i}`),
  "whole network",
];

/** Relative L2 errors of value and tangent after every block and at the output, against f64 on the CPU. */
export function jvpError(device: Device, o: JvpErrorOptions): BenchRow[] {
  using reference = Device.open({ device: "cpu" });
  const spec = small(o.spec, o.dim, o.layers);
  const { config, text } = spec;
  using _held = device.scope();
  const w = weights(spec, device, o.dtype);
  const video = [1, ...swappedShape(o.latent)];
  const textShape = [1, text.length, text.width];
  const rounded = (v: Float64Array, shape: number[], dtype: DType): Float64Array =>
    device.fromValues(v, shape, dtype).values();
  const residual = o.precise ? "f32" : o.residual;
  const [x, xDot] = [1, 2].map((stream) => rounded(normals(numel(video), stream), video, o.residual));
  const context = rounded(normals(numel(textShape), 3), textShape, o.dtype);

  const run = (on: Device, dtype: DType, residual: DType, precise: boolean): { seen: Spy["seen"]; ms: number } => {
    using _scope = on.scope();
    const stored = Network.create(on, spec, { dtype, residual, checkpoint: "block" });
    for (const [name, values] of w)
      stored.params.tensor(name).setHost(hostTensor(dtype, [...stored.params.spec(name).shape], values));
    const model = precise ? stored.withActivations("f32") : stored;
    const spy = new Spy(on, { record: false });
    const began = performance.now();
    const forward = (): void =>
      void model.forward(
        spy,
        constant(on.fromValues(x, video, residual), on.fromValues(xDot, video, residual)),
        [timeOf(on)],
        constant(on.fromValues(context, textShape, dtype)),
      );
    if (precise) on.splitProducts(forward);
    else forward();
    on.sync();
    return { seen: spy.seen, ms: performance.now() - began };
  };

  const [exact, got] = [run(reference, "f64", "f64", false), run(device, o.dtype, residual, o.precise)];
  const storage = o.precise ? `${o.dtype} weights, f32-grade` : `${o.dtype}, residual ${o.residual}`;
  const shape = `${o.latent.join("x")}, dim ${config.dim}, heads ${config.heads}, ${storage}`;
  const names = namesOf(config);
  return exact.seen.flatMap(({ y, dot }, i): BenchRow[] => {
    const measured = got.seen[i];
    if (!dot || !measured.dot) return [];
    return [
      {
        name: names[i],
        shape,
        ms: i === exact.seen.length - 1 ? got.ms : 0,
        valueError: relativeL2(measured.y, y),
        tangentError: relativeL2(measured.dot, dot),
      },
    ];
  });
}

/** Keeps every block's value and tangent on the device in f32, or compares them with those of another run. */
class DeviceSpy extends Tape {
  readonly seen: { y: Tensor; dot: Tensor | null }[] = [];
  readonly errors: { value: number; tangent: number | null }[] = [];
  constructor(
    device: Device,
    private readonly against: DeviceSpy | null,
  ) {
    super(device, { record: false });
  }
  override block(mode: CheckpointMode, body: (tape: Tape, inputs: Var[]) => Var, inputs: Var[]): Var {
    const out = super.block(mode, body, inputs);
    if (this.against) {
      const { y, dot } = this.against.seen[this.errors.length];
      this.errors.push({ value: distance(out.x, y), tangent: out.dot && dot ? distance(out.dot, dot) : null });
    } else {
      const keep = (t: Tensor): Tensor => this.device.empty(t.shape, "f32").set(t);
      this.seen.push({ y: keep(out.x), dot: out.dot && keep(out.dot) });
    }
    return out;
  }
}

/** ||a - b|| / ||b|| of device tensors, b f32. */
function distance(a: Tensor, b: Tensor): number {
  using _scope = a.device.scope();
  const square = (t: Tensor): number => sampleReduce(t.view([1, t.numel]), "squares")[0];
  return Math.sqrt(square(a.device.empty(b.shape, "f32").set(a).axpy(b, -1)) / square(b));
}

/** The same errors for a network of any size, against its f32-grade pass on the same device, with random weights. */
export function jvpErrorLarge(
  device: Device,
  spec: NetSpec,
  o: { latent: readonly number[]; dtype: DType; residual: DType },
): BenchRow[] {
  using _held = device.scope();
  const { family, config, text } = spec;
  const model = Network.create(device, spec, { dtype: o.dtype, residual: o.residual, checkpoint: "block" });
  for (const [i, param] of family.params(config).entries()) {
    fillNoise(model.params.tensor(param.name), 4096 + i, spread(param), param.init.kind === "ones" ? 1 : 0);
  }
  const [x, xDot] = [1, 2].map((stream) => noise(device, [1, ...swappedShape(o.latent)], o.residual, stream));
  const context = noise(device, [1, text.length, text.width], o.dtype, 3);
  const run = (on: Network, spy: DeviceSpy, dtype: DType): number => {
    const began = performance.now();
    on.forward(spy, constant(x.to(dtype), xDot.to(dtype)), [timeOf(device)], constant(context));
    device.sync();
    return performance.now() - began;
  };
  const exact = new DeviceSpy(device, null);
  const exactMs = device.splitProducts(() => run(model.withActivations("f32"), exact, "f32"));
  const got = new DeviceSpy(device, exact);
  const ms = run(model, got, o.residual);
  const shape = [
    o.latent.join("x"),
    `${config.layers} blocks of ${config.dim}`,
    o.dtype,
    `residual ${o.residual}`,
    `against f32-grade (${exactMs.toFixed(0)} ms)`,
  ].join(", ");
  const names = namesOf(config);
  return got.errors.flatMap(({ value, tangent }, i): BenchRow[] =>
    tangent === null
      ? []
      : [{ name: names[i], shape, ms: i === got.errors.length - 1 ? ms : 0, valueError: value, tangentError: tangent }],
  );
}
