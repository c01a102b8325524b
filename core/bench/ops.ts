import type { DType } from "../dtype.ts";
import { tokensOf, type NetSpec } from "../models/family.ts";
import { ropeTables } from "../nn/rope.ts";
import type { AnyOp, Cotangents, Inputs, Op } from "../op.ts";
import { activationOp } from "../ops/activation.ts";
import { adamwStep, type AdamWStep } from "../ops/nondiff/adamw.ts";
import { adaLayerNormOp } from "../ops/ada_layer_norm.ts";
import { addModulationOp } from "../ops/add_modulation.ts";
import { addOp } from "../ops/add.ts";
import { gateResidualOp } from "../ops/gate_residual.ts";
import { layerNormOp } from "../ops/layer_norm.ts";
import { lincombKernels } from "../ops/lincomb.ts";
import { sqLossKernels } from "../ops/sq_loss.ts";
import { patchifyOp } from "../ops/patchify.ts";
import { rmsNormRopeOp } from "../ops/rms_norm_rope.ts";
import { timestepEmbedOp } from "../ops/timestep_embed.ts";
import { unpatchifyOp } from "../ops/unpatchify.ts";
import { sampleReduce, sampleReduceInto, statDType, type Device, type Tensor } from "../tensor.ts";
import { timeAgainstCopy } from "./copy.ts";
import { compared, fillNoise, noise, rate, timeCalls, type BenchRow, type BenchSetting } from "./time.ts";

export interface OpsSize {
  spec: NetSpec;
  batch: number;
  /** Latent channels, frames, rows, columns. */
  latent: readonly number[];
  dtype: DType;
  residual: DType;
}

interface Timed {
  name: string;
  op: AnyOp;
  x: Inputs;
  p: unknown;
  /** Inputs with a tangent. */
  dots: number[];
  /** Inputs that the vjp reads besides the cotangent, and inputs whose cotangent it writes. */
  reads: number[];
  writes: number[];
  /** Inputs whose cotangent is added to (read and written, stat dtype). */
  adds?: number[];
}

/** Every fused elementwise op where the network uses it. */
function table(device: Device, { spec, batch: B, latent, dtype, residual }: OpsSize): Timed[] {
  const c = {
    ...spec.config,
    eps: 1e-6,
    freqDim: 256,
    outDim: spec.latent.channels,
    ffnDim: spec.family.ffnDim(spec.config),
  };
  const [C, T, Y, X] = latent;
  const grid: [number, number, number] = [T / c.patch[0], Y / c.patch[1], X / c.patch[2]];
  const L = grid[0] * grid[1] * grid[2];
  const stat = statDType(residual);
  let stream = 10;
  const t = (shape: number[], as: DType, std = 1): Tensor => fillNoise(device.empty(shape, as), ++stream, std);
  const h = (): Tensor => t([B, L, c.dim], dtype);
  const r = (): Tensor => t([B, L, c.dim], residual);
  const modulation = t([B, 6, c.dim], stat, 0.1);
  const w = (n: number): Tensor => t([n], dtype, 0.5);
  const rope = ropeTables(device, c.dim / c.heads, grid, stat);
  const video = [B, C, T, Y, X];
  type Rest<P> = Pick<Timed, "dots" | "reads" | "writes" | "adds"> & { p: NoInfer<P> };
  const entry = <I extends Inputs, P, S extends readonly Tensor[]>(
    name: string,
    op: Op<I, P, S>,
    x: NoInfer<I>,
    rest: Rest<P>,
  ): Timed => ({ name, op, x, ...rest });
  const norm = { heads: c.heads, group: c.dim, pairing: "interleaved" as const, eps: c.eps, dtype: null };
  const patches = [B, L, c.outDim * c.patch[0] * c.patch[1] * c.patch[2]];
  return [
    entry("ada_layer_norm", adaLayerNormOp, [r(), modulation], {
      p: { shift: 0, scale: 1, eps: c.eps, dtype },
      dots: [0, 1],
      reads: [0, 1],
      writes: [0],
      adds: [1],
    }),
    entry("layer_norm", layerNormOp, [r(), w(c.dim), w(c.dim)], {
      p: { eps: c.eps, dtype },
      dots: [0],
      reads: [0, 1],
      writes: [0],
      adds: [1, 2],
    }),
    entry("rms_norm_rope", rmsNormRopeOp, [h(), w(c.dim)], {
      p: { ...norm, rope },
      dots: [0],
      reads: [0, 1],
      writes: [0],
      adds: [1],
    }),
    entry("rms_norm_rope, no rope", rmsNormRopeOp, [h(), w(c.dim)], {
      p: { ...norm, rope: null },
      dots: [0],
      reads: [0, 1],
      writes: [0],
      adds: [1],
    }),
    entry("gate_residual", gateResidualOp, [r(), h(), modulation], {
      p: { gate: 2 },
      dots: [0, 1, 2],
      reads: [1, 2],
      writes: [1],
      adds: [2],
    }),
    entry("gate_residual, plain", gateResidualOp, [r(), h(), null], {
      p: { gate: 0 },
      dots: [0, 1],
      reads: [],
      writes: [1],
    }),
    entry("add", addOp, [h(), h()], { p: null, dots: [0, 1], reads: [], writes: [] }),
    entry("activation gelu_tanh", activationOp, [t([B, L, c.ffnDim], dtype)], {
      p: { kind: "gelu_tanh" },
      dots: [0],
      reads: [0],
      writes: [0],
    }),
    entry("add_modulation", addModulationOp, [t([1, 6, c.dim], dtype), t([B, 6, c.dim], stat)], {
      p: null,
      dots: [1],
      reads: [],
      writes: [1],
      adds: [0],
    }),
    entry("timestep_embed", timestepEmbedOp, [t([B], "f64")], {
      p: { width: c.freqDim, dtype: stat },
      dots: [0],
      reads: [0],
      writes: [0],
    }),
    entry("patchify", patchifyOp, [t(video, residual)], {
      p: { patch: c.patch, order: "channel_first", dtype },
      dots: [0],
      reads: [],
      writes: [0],
    }),
    entry("unpatchify", unpatchifyOp, [t(patches, residual)], {
      p: { patch: c.patch, order: "channel_last", dtype: residual, shape: [B, c.outDim, T, Y, X] },
      dots: [0],
      reads: [],
      writes: [0],
    }),
  ];
}

const total = (tensors: (Tensor | null | undefined)[]): number => tensors.reduce((n, t) => n + (t?.bytes ?? 0), 0);
const params = (p: unknown): Tensor[] =>
  p && typeof p === "object"
    ? Object.values(p).flatMap((v) =>
        v && typeof v === "object" && "ptr" in v
          ? [v as Tensor]
          : v && typeof v === "object" && "cos" in v
            ? Object.values(v as Record<string, Tensor>)
            : [],
      )
    : [];

/** One op in its three passes; bytes count every tensor once per read or write that cannot be avoided. */
function rows(setting: BenchSetting, e: Timed): BenchRow[] {
  const { device } = setting;
  using _scope = device.scope();
  const { op, x, p } = e;
  const dots = x.map((t, i) => (t && e.dots.includes(i) ? noise(device, t.shape, t.dtype, 50 + i) : null));
  const { y, saved } = op.forward(x, p, true);
  const extra = params(p);
  const yBar = noise(device, y.shape, y.dtype, 60);
  const into = x.map((t, i) => (t && e.adds?.includes(i) ? noise(device, t.shape, statDType(t.dtype), 70 + i) : null));
  const bar: Cotangents = {
    need: (i) => e.writes.includes(i) || Boolean(into[i]),
    put: () => {},
    accumulate: (i) => into[i] as Tensor,
  };
  const passes: [string, () => void, number][] = [
    ["fwd", () => op.forward(x, p, true), total([...x, ...extra, y, ...saved])],
    ["jvp", () => op.jvp(x, dots, p, true), total([...x, ...dots, ...extra, y, y, ...saved])],
    [
      "vjp",
      () => op.vjp(bar, yBar, x, y, saved, p),
      yBar.bytes +
        total([...e.reads.map((i) => x[i]), ...e.writes.map((i) => x[i]), ...into, ...into, ...extra, ...saved]),
    ],
  ];
  const timed = e.writes.length > 0 ? passes : passes.slice(0, 2);
  return timed.map(([pass, call, bytes]) => {
    const { ms, ceiling } = timeAgainstCopy(setting, call, bytes);
    return compared(
      {
        name: `${e.name} ${pass}`,
        shape: `${(x[0] as Tensor).shape.join("x")} ${(x[0] as Tensor).dtype}`,
        ms,
        ...rate({ bytes }, ms),
      },
      ceiling,
    );
  });
}

/** Kernels over latents, called directly: their ops upload a few coefficients from the host at every call. */
function latents(setting: BenchSetting, { batch: B, latent, residual }: OpsSize): BenchRow[] {
  const { device } = setting;
  using _scope = device.scope();
  const shape = [B, ...latent];
  const [a, b, aDot, bDot, y, yDot] = [1, 2, 3, 4, 5, 6].map((stream) => noise(device, shape, residual, stream));
  const eachSample = (...values: number[]): Tensor =>
    device.fromValues(values.flatMap((v) => Array<number>(B).fill(v)), [values.length * B], "f64");
  const [coef, coefDot] = [eachSample(0.6, 0.8), eachSample(0.8, -0.6)];
  const [weight, loss, lossDot] = [eachSample(1), eachSample(1), eachSample(1)];
  const constants = { target: b, delta: aDot, weight };
  const calls: [string, number, () => void][] = [
    ["lincomb, 2 terms fwd", 3, () => lincombKernels.forward([a, b], coef, y)],
    ["lincomb, 2 terms jvp", 6, () => lincombKernels.jvp([a, b], [aDot, bDot], { coef, coefDot }, { y, yDot })],
    ["lincomb, one term vjp", 2, () => lincombKernels.vjp(y, coef, a, 0)],
    ["sq_loss fwd", 3, () => sqLossKernels.forward(a, constants, loss)],
    ["sq_loss jvp", 4, () => sqLossKernels.jvp(a, bDot, constants, { loss, lossDot })],
    ["sq_loss vjp", 4, () => sqLossKernels.vjp(a, constants, loss, y)],
  ];
  return calls.map(([name, moved, call]) => {
    const bytes = moved * a.bytes;
    const { ms, ceiling } = timeAgainstCopy(setting, call, bytes);
    return compared({ name, shape: `${shape.join("x")} ${a.dtype}`, ms, ...rate({ bytes }, ms) }, ceiling);
  });
}

/** Functions without a derivative, over one activation tensor and over the parameters of one block. */
function helpers(
  { device, timing, ceiling }: BenchSetting,
  { spec, batch: B, latent, dtype }: OpsSize,
): BenchRow[] {
  using _scope = device.scope();
  const { config: c, family } = spec;
  const n = B * tokensOf(c, latent) * c.dim;
  const weights = 8 * c.dim * c.dim + 2 * c.dim * family.ffnDim(c);
  const [wide, half] = [noise(device, [1, n], "f32", 1), noise(device, [1, n], dtype, 2)];
  const [master, grad, m, v, ema] = [3, 4, 5, 6, 7].map((stream) => noise(device, [weights], "f32", stream));
  v.fill(1);
  const w = noise(device, [weights], "bf16", 8);
  const sums = device.empty([1], "f64");
  const step: AdamWStep = {
    param: w,
    master,
    grad,
    m,
    v,
    ema: { flat: ema, beta: 0.99 },
    t: 1,
    lr: 1e-4,
    betas: [0.9, 0.99],
    eps: 1e-8,
    weightDecay: 0.01,
    gradScale: 1,
  };
  const moved = w.bytes + grad.bytes + 2 * (master.bytes + m.bytes + v.bytes + ema.bytes);
  const calls: [string, number, () => void, number][] = [
    ["cast f32 to storage", n, () => half.set(wide), wide.bytes + half.bytes],
    ["axpy", n, () => void wide.axpy(half, 1e-3), half.bytes + 2 * wide.bytes],
    ["fill", n, () => void half.fill(0.5), half.bytes],
    ["randn", n, () => half.setRandn(1, 1), half.bytes],
    ["sample_reduce squares", n, () => void sampleReduceInto(wide, "squares", sums), wide.bytes],
    ["sample_reduce to the host", n, () => void sampleReduce(wide, "squares"), wide.bytes],
    ["adamw, bf16 with master and ema", weights, () => adamwStep(step), moved],
  ];
  return calls.map(([name, count, call, bytes]) => {
    const ms = timeCalls(device, call, timing);
    return compared({ name, shape: `${count}`, ms, ...rate({ bytes }, ms) }, ceiling);
  });
}

/** Every fused elementwise op at a model's size, compared with the bandwidth of copies of the same size, GB/s. */
export function benchOps(setting: BenchSetting, size: OpsSize): BenchRow[] {
  const { device } = setting;
  using _scope = device.scope();
  const all = table(device, size);
  return [
    ...all.flatMap((e) => rows(setting, e)),
    ...latents(setting, size),
    ...helpers(setting, size),
  ];
}
