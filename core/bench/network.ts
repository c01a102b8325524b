import type { DType } from "../dtype.ts";
import { at, evaluate, guided, trigDenoiser, type Denoiser } from "../diffusion/predict.ts";
import { criticLoss } from "../losses/critic.ts";
import { dmdLoss, type DmdDraws } from "../losses/dmd.ts";
import type { LossResult } from "../losses/loss.ts";
import { scmLoss, scmParts, type ScmOptions } from "../losses/scm.ts";
import { swappedShape } from "../data/latents.ts";
import { allPresets } from "../models/families.ts";
import { netSpec, tokensOf, type NetSpec } from "../models/family.ts";
import { AdamW } from "../optim/adamw.ts";
import { noiseKeys } from "../samplers/noise.ts";
import { Device, type Tensor } from "../tensor.ts";
import { constant, Tape, type CheckpointMode } from "../tape.ts";
import { drawNow } from "../networks/draw.ts";
import { drawNet } from "../networks/net.ts";
import { Network, velocityNet } from "../networks/network.ts";
import { studentPlan } from "../networks/plan.ts";
import type { GemmShape } from "./gemm.ts";
import { compared, fillNoise, noise, rate, timeCalls, type BenchRow, type BenchSetting } from "./time.ts";
import { counted } from "../../ffi/counting.ts";

/** Networks by their names in `--model`, each with its usual latent (channels, frames, rows, columns). */
export const benchModels = (): Record<string, { spec: NetSpec; latent: readonly number[] }> =>
  Object.fromEntries(
    Object.values(allPresets()).flatMap(({ bench, family, config, latent }) =>
      bench === null ? [] : [[bench, { spec: netSpec(family, config), latent }]],
    ),
  );

export interface NetworkSize {
  spec: NetSpec;
  batch: number;
  latent: readonly number[];
  dtype: DType;
  residual: DType;
  checkpoint: CheckpointMode;
}

const tokens = ({ spec, latent }: NetworkSize): number => tokensOf(spec.config, latent);

/** The linears of a model: attention projections, both feed-forward layers, and the text's keys and values. */
export function gemmShapes(size: NetworkSize): GemmShape[] {
  const { family, config, text } = size.spec;
  const [D, F] = [config.dim, family.ffnDim(config)];
  const M = size.batch * tokens(size);
  return [
    { M, N: D, K: D },
    { M, N: F, K: D },
    { M, N: D, K: F },
    { M: size.batch * text.length, N: D, K: D },
  ];
}

const shapeOf = (s: NetworkSize): string =>
  [
    `B${s.batch} ${s.latent.join("x")} ${tokens(s)} tokens`,
    `${s.spec.config.layers} blocks of ${s.spec.config.dim}`,
    s.dtype,
    `residual ${s.residual}`,
  ].join(", ");

/** A device over the same library that counts the FLOP of matmuls and attention. */
export function countedDevice(device: Device): { device: Device; take: () => number } {
  const { backend, take } = counted(device.backend, true);
  return { device: new Device(backend), take };
}

/** A model of random weights drawn on the device: normal of std 0.02 everywhere, around 1 for the weights of norms. */
export function randomNetwork(device: Device, s: NetworkSize, gradients: boolean | Tensor, stream: number): Network {
  const { dtype, residual, checkpoint } = s;
  const model = Network.create(device, s.spec, { dtype, residual, checkpoint }, gradients);
  for (const [i, spec] of model.params.specs.entries())
    fillNoise(model.params.tensor(spec.name), stream * 4096 + i, 0.02, spec.init.kind === "ones" ? 1 : 0);
  return model;
}

interface Inputs {
  x: Tensor;
  xDot: Tensor;
  yBar: Tensor;
  context: Tensor;
  /** In network units. */
  t: Tensor;
  tDot: Tensor;
}

function inputs(device: Device, s: NetworkSize): Inputs {
  const video = [s.batch, ...swappedShape(s.latent)];
  const vector = (v: number): Tensor => device.fromValues(new Float64Array(s.batch).fill(v), [s.batch], "f64");
  const [x, xDot, yBar] = [1, 2, 3].map((stream) => noise(device, video, s.residual, stream));
  return {
    x,
    xDot,
    yBar,
    context: noise(device, [s.batch, s.spec.text.length, s.spec.text.width], s.dtype, 4),
    t: vector(600),
    tDot: vector(300),
  };
}

/** A benchmark on a counting device; `take` returns the FLOP since it was last called. */
interface Counting extends BenchSetting, Disposable {
  take: () => number;
}

function counting(setting: BenchSetting): Counting {
  const { device, take } = countedDevice(setting.device);
  return { ...setting, device, take, [Symbol.dispose]: () => device[Symbol.dispose]() };
}

/** A row with the FLOP of one call and its peak memory, weights included. */
function row(on: Counting, s: NetworkSize, name: string, call: () => void): BenchRow {
  const { device, take, timing, ceiling } = on;
  device.resetPeak();
  take();
  {
    using _scope = device.scope();
    call();
  }
  const flop = take();
  const bytesPeak = device.memory().peak;
  const ms = timeCalls(device, call, timing);
  return compared({ name, shape: shapeOf(s), ms, ...rate({ flop }, ms), bytesPeak }, ceiling);
}

/** One evaluation without tangent or recording. */
export function benchForward(setting: BenchSetting, s: NetworkSize): BenchRow[] {
  using on = counting(setting);
  const { device } = on;
  const model = randomNetwork(device, s, false, 1);
  const { x, context, t } = inputs(device, s);
  const call = (): void =>
    void model.forward(new Tape(device, { record: false }), constant(x), [constant(t)], constant(context));
  return [row(on, s, "teacher forward", call)];
}

/** Value and tangent in one pass; with `backward` also recorded, with the checkpointing of `s`, and backpropagated. */
export function benchJvp(setting: BenchSetting, s: NetworkSize, backward: boolean): BenchRow[] {
  using on = counting(setting);
  const { device } = on;
  const model = randomNetwork(device, s, backward, 1);
  const { x, xDot, yBar, context, t, tDot } = inputs(device, s);
  const pass = (record: boolean, tangent: boolean): void => {
    const tape = new Tape(device, { record });
    const y = model.forward(
      tape,
      constant(x, tangent ? xDot : null),
      [constant(t, tangent ? tDot : null)],
      constant(context),
    );
    if (record) tape.backward(y, yBar);
  };
  const rows = [row(on, s, "value + tangent", () => pass(false, true))];
  if (!backward) return rows;
  rows.push(row(on, s, `value + backward, checkpoint ${s.checkpoint}`, () => pass(true, false)));
  rows.push(row(on, s, `value + tangent + backward, checkpoint ${s.checkpoint}`, () => pass(true, true)));
  return rows;
}

interface Step {
  student: Network;
  teacher: Network;
  denoiser: Denoiser;
  target: Denoiser;
  x0: Tensor;
  eps: Tensor;
  condition: Tensor;
  tTrig: Float64Array;
  options: ScmOptions;
  optimizer: AdamW;
  ema: Tensor;
}

/** Published optimizer settings: no first moment. */
const adam = (model: Network): AdamW =>
  new AdamW(model.params, { betas: [0, 0.999], eps: 1e-8, weightDecay: 0.01, maxGradNorm: 0 });

function stepOf(device: Device, s: NetworkSize): Step {
  const [student, teacher] = [randomNetwork(device, s, true, 1), randomNetwork(device, s, false, 2)];
  const optimizer = adam(student);
  const ema = device.persistent(() => device.empty(student.params.flat.shape, "f32").set(optimizer.values));
  const { x: x0, xDot: eps, context: condition } = inputs(device, s);
  const negative = noise(device, condition.shape, s.dtype, 5);
  return {
    student,
    teacher,
    optimizer,
    ema,
    x0,
    eps,
    condition,
    tTrig: new Float64Array(s.batch).fill(0.9),
    denoiser: trigDenoiser(velocityNet(student)),
    target: guided(trigDenoiser(velocityNet(teacher)), 5, () => negative),
    options: {
      tangent: "jvp",
      fdSize: 1e-4,
      passes: "one",
      ramp: 1,
      rampScope: "x_t",
      scale: 1,
      precise: null,
      onNonfinite: "raise",
    },
  };
}

const batchMean = (device: Device, B: number): Tensor => device.fromValues(new Float64Array(B).fill(1 / B), [B], "f64");

/**
 * Parts of an sCM student step (guided teacher, value with tangent, loss and backward, AdamW with EMA), then all of it.
 */
export function benchStudentStep(setting: BenchSetting, s: NetworkSize): BenchRow[] {
  using on = counting(setting);
  const { device } = on;
  const { denoiser, target, x0, eps, condition, tTrig, options, optimizer, ema } = stepOf(device, s);
  const tape = (record: boolean): Tape => new Tape(device, { record });
  const parts: [string, () => void][] = [
    ["teacher field, guided (2 forwards)", () => void evaluate(target.field, x0, tTrig, condition)],
    [
      "value + tangent, not recorded",
      () => void denoiser.field(tape(false), constant(x0, eps), at(tTrig, tTrig), condition),
    ],
    [
      "sCM parts (teacher, value + tangent, recorded)",
      () => void scmParts(tape(true), denoiser, target, { x0, condition }, { tTrig, eps }, options),
    ],
    ["AdamW + EMA, gradient norm", () => optimizer.step(1e-6, optimizer.gradNorm(), { flat: ema, beta: 0.99 })],
    [
      "whole sCM student step",
      () => {
        const t = tape(true);
        const { loss } = scmLoss(t, denoiser, target, { x0, condition }, { tTrig, eps }, options);
        t.backward(loss, batchMean(device, s.batch));
        optimizer.step(1e-6, optimizer.gradNorm(), { flat: ema, beta: 0.99 });
      },
    ],
  ];
  const rows = parts.map(([name, call]) => row(on, s, name, call));
  rows[3] = { ...rows[3], tflops: undefined, ceiling: undefined, ratio: undefined };
  return rows;
}

/**
 * A whole rCM student step with every network and optimizer state of training on the device: sCM, then DMD with n steps
 * of simulation (n - 1 of them without gradient), AdamW, EMA; and a critic step. A run draws n = 1..4 in turn; their
 * mean is the mean of 2 and 3. Source: rCM Algorithm 1.
 */
export function benchRcmStep(setting: BenchSetting, s: NetworkSize): BenchRow[] {
  using on = counting(setting);
  const { device } = on;
  const { student, denoiser, target, x0, eps, condition, tTrig, options, optimizer, ema } = stepOf(device, s);
  // As in training, student and critic share one gradient buffer: an iteration trains one of them.
  const critic = randomNetwork(device, s, student.params.grad ?? true, 3);
  const criticOpt = adam(critic);
  const judge = trigDenoiser(velocityNet(critic));
  const draws = (n: number): DmdDraws => ({
    simulation: {
      noise: noise(device, x0.shape, x0.dtype, 30),
      times: [1.4, 1.0, 0.6].slice(0, n - 1).map((t) => new Float64Array(s.batch).fill(t)),
      renoise: [31, 32, 33].slice(0, n - 1).map((k) => noise(device, x0.shape, x0.dtype, k)),
    },
    tTrig,
    eps,
  });
  const back = (loss: (t: Tape) => LossResult): void => {
    using _scope = device.scope();
    const t = new Tape(device, { record: true });
    t.backward(loss(t).loss, batchMean(device, s.batch));
  };
  const studentStep = (n: number) => (): void => {
    student.params.zeroGrad();
    back((t) => scmLoss(t, denoiser, target, { x0, condition }, { tTrig, eps }, options));
    const nets = { student: denoiser, critic: judge, teacher: target };
    back((t) => dmdLoss(t, nets, condition, draws(n), { scale: 1, onNonfinite: "raise" }));
    optimizer.step(2e-6, optimizer.gradNorm(), { flat: ema, beta: 0.99 });
  };
  const criticStep = (n: number) => (): void => {
    critic.params.zeroGrad();
    back((t) => criticLoss(t, judge, denoiser, condition, draws(n), { onNonfinite: "raise" }));
    criticOpt.step(4e-7, criticOpt.gradNorm(), null);
  };
  const rows = [2, 3].map((n) => row(on, s, `rCM student step, simulation of ${n}`, studentStep(n)));
  const ms = (rows[0].ms + rows[1].ms) / 2;
  const mean = {
    ...rows[0],
    name: "rCM student step, mean of the schedule",
    ms,
    tflops: ((rows[0].tflops as number) * rows[0].ms + (rows[1].tflops as number) * rows[1].ms) / (2 * ms),
    bytesPeak: Math.max(...rows.map((r) => r.bytesPeak as number)),
  };
  return [...rows, compared(mean, on.ceiling), row(on, s, "critic step, simulation of 2", criticStep(2))];
}

/** Few-step sampling of latents, one evaluation a step. */
export function benchSample(setting: BenchSetting, s: NetworkSize, steps: readonly number[]): BenchRow[] {
  using on = counting(setting);
  const { device } = on;
  const net = drawNet(randomNetwork(device, s, false, 1));
  const condition = inputs(device, s).context;
  const noise = noiseKeys(0, 0, s.batch);
  return steps.map((n) => {
    const plan = studentPlan({ steps: n, sigmaMax: 80, midTimes: null, form: "trig", mode: "sde" });
    const call = (): void =>
      void drawNow(net, { plan, shape: swappedShape(s.latent), noise, condition, negative: null });
    return row(on, s, `sample, ${n} step${n === 1 ? "" : "s"}`, call);
  });
}
