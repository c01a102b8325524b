import { expect } from "bun:test";
import { numel, type DType } from "../../core/dtype.ts";
import { causal, conv3d, convShape, packConv, type ConvPlan } from "../../core/ops/nondiff/video.ts";
import { Rng } from "../../core/rng.ts";
import type { Device, Tensor } from "../../core/tensor.ts";
import { boundOf } from "./bounds.ts";
import { relativeError } from "./golden.ts";
import { conv3d as plainConv } from "./reference/conv3d.ts";
import { plain, type Plain } from "./reference/plain.ts";

/** A convolution: x [T, Y, X, C] with `past` frames before it, to `out` channels. */
export interface ConvCase {
  name: string;
  x: [T: number, Y: number, X: number, C: number];
  past: number;
  out: number;
  plan: ConvPlan;
  bias?: boolean;
  residual?: boolean;
  /** Channels of the weights, when x is filled up with zeros. */
  inner?: number;
}

const HALVE = causal(1, 3, { stride: 2, pad: 0 });
const DOUBLE = causal(1, 3, { upsample: true });

export const CONV_CASES: ConvCase[] = [
  { name: "3x3x3, no past", x: [3, 5, 7, 4], past: 0, out: 6, plan: causal(3, 3), bias: true },
  {
    name: "3x3x3, one past frame, residual", x: [2, 6, 5, 3], past: 1, out: 5, plan: causal(3, 3), bias: true,
    residual: true,
  },
  { name: "3x3x3, two past frames, one frame", x: [1, 4, 4, 6], past: 2, out: 3, plan: causal(3, 3) },
  { name: "3x3x3, filled channels", x: [2, 5, 6, 8], past: 0, out: 6, plan: causal(3, 3), bias: true, inner: 3 },
  { name: "3x3x3, narrower than the kernel", x: [1, 1, 2, 2], past: 0, out: 2, plan: causal(3, 3) },
  { name: "1x3x3, stride 2", x: [3, 6, 8, 4], past: 0, out: 4, plan: HALVE, bias: true },
  {
    name: "3x1x1, split in two", x: [3, 4, 5, 4], past: 2, out: 8, plan: causal(3, 1, { split: 2 }), bias: true,
    residual: true,
  },
  {
    name: "3x1x1, stride 2, first", x: [5, 3, 4, 6], past: 0, out: 6, plan: causal(3, 1, { strideT: 2, padT: 0 }),
    bias: true,
  },
  {
    name: "3x1x1, stride 2, later", x: [4, 3, 4, 6], past: 1, out: 6, plan: causal(3, 1, { strideT: 2, padT: 1 }),
    bias: true,
  },
  { name: "1x3x3 on the doubled grid", x: [2, 5, 6, 4], past: 0, out: 3, plan: DOUBLE, bias: true },
  { name: "1x3x3 on the doubled grid, residual", x: [1, 3, 3, 4], past: 0, out: 8, plan: DOUBLE, residual: true },
];

/** Sizes of the real network, with tails of every tile: the kernels of a GPU take other paths there. */
export const CONV_CASES_WIDE: ConvCase[] = [
  {
    name: "96 to 96, whole tiles", x: [3, 48, 32, 96], past: 2, out: 96, plan: causal(3, 3), bias: true,
    residual: true,
  },
  { name: "96 to 96, many tiles", x: [9, 80, 96, 96], past: 0, out: 96, plan: causal(3, 3), bias: true },
  { name: "96 to 96, tails", x: [2, 27, 41, 96], past: 1, out: 96, plan: causal(3, 3), bias: true, residual: true },
  { name: "96 to 192", x: [2, 30, 20, 96], past: 2, out: 192, plan: causal(3, 3), bias: true },
  { name: "192 to 192, tails", x: [3, 37, 29, 192], past: 2, out: 192, plan: causal(3, 3), bias: true, residual: true },
  { name: "192 to 192, tall tiles", x: [2, 60, 8, 192], past: 0, out: 192, plan: causal(3, 3) },
  { name: "192 to 384", x: [2, 16, 24, 192], past: 2, out: 384, plan: causal(3, 3), bias: true },
  {
    name: "384 to 384, one frame", x: [1, 30, 52, 384], past: 2, out: 384, plan: causal(3, 3), bias: true,
    residual: true,
  },
  { name: "pixels to 96", x: [3, 40, 52, 8], past: 2, out: 96, plan: causal(3, 3), bias: true, inner: 3 },
  { name: "96 to pixels", x: [2, 40, 52, 96], past: 2, out: 3, plan: causal(3, 3), bias: true },
  { name: "latents to 384", x: [3, 15, 13, 16], past: 0, out: 384, plan: causal(3, 3), bias: true },
  { name: "384 to moments", x: [2, 15, 13, 384], past: 2, out: 32, plan: causal(3, 3), bias: true },
  { name: "96, halved", x: [2, 52, 70, 96], past: 0, out: 96, plan: HALVE, bias: true },
  { name: "192, halved", x: [2, 36, 40, 192], past: 0, out: 192, plan: HALVE, bias: true },
  { name: "384, halved", x: [1, 30, 42, 384], past: 0, out: 384, plan: HALVE, bias: true },
  { name: "384 to two frames", x: [3, 20, 18, 384], past: 2, out: 768, plan: causal(3, 1, { split: 2 }), bias: true },
  {
    name: "192, frames halved, first", x: [5, 18, 24, 192], past: 0, out: 192,
    plan: causal(3, 1, { strideT: 2, padT: 0 }), bias: true,
  },
  {
    name: "384, frames halved, later", x: [4, 18, 24, 384], past: 1, out: 384,
    plan: causal(3, 1, { strideT: 2, padT: 1 }), bias: true,
  },
  { name: "384 to 192, doubled", x: [2, 15, 26, 384], past: 0, out: 192, plan: DOUBLE, bias: true },
  { name: "192 to 96, doubled", x: [2, 33, 18, 192], past: 0, out: 96, plan: DOUBLE, bias: true },
];

const SUMS = { f64: 1e-12, f32: 1e-5 };

/**
 * conv3d in `dtype` against plain loops or, where `reference` is given, against that device in f64 on the same inputs:
 * small whole numbers over eight, exact in every dtype. What the kernels are given on the doubled grid is sums of
 * weights, which are as exact.
 */
export function checkConv(device: Device, c: ConvCase, dtype: DType, reference: Device | null = null): void {
  const [T, Y, X, C] = c.x;
  const inner = c.inner ?? C;
  const rng = new Rng(3, 5);
  const draw = (shape: number[]): Plain =>
    plain(shape, Float64Array.from({ length: numel(shape) }, () => (rng.below(17) - 8) / 8));
  const filled = (frames: number): Plain => {
    const all = draw([frames, Y, X, C]);
    return plain(all.shape, all.v.map((v, i) => (i % C < inner ? v : 0)));
  };
  const { y: shape } = convShape(c.x, c.past, c.out, c.plan);
  const [x, past, w] = [filled(T), filled(c.past), draw([c.out, inner, c.plan.kernel, c.plan.side, c.plan.side])];
  const b = c.bias ? draw([c.out]) : null;
  const residual = c.residual ? draw(shape) : null;
  const on = (d: Device, as: DType): Plain => {
    using _scope = d.scope();
    const up = (p: Plain): Tensor => d.fromValues(p.v, p.shape, as);
    const y = conv3d({
      x: up(x),
      past: c.past > 0 ? up(past) : null,
      w: packConv(up(w), C, c.plan),
      b: b && up(b),
      residual: residual && up(residual),
    }, c.plan);
    expect(y.shape).toEqual(shape);
    return plain(shape, y.values());
  };
  const want = reference ? on(reference, "f64") : plainConv({ x, past, w, b, residual }, c.plan);
  expect(relativeError(on(device, dtype).v, want.v)).toBeLessThan(boundOf(dtype, SUMS, want));
}
