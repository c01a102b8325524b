import { expect } from "bun:test";
import type { DType } from "../../core/dtype.ts";
import { causal, conv3d, convShape, packConv, type ConvPlan } from "../../core/ops/nondiff/video.ts";
import type { Device } from "../../core/tensor.ts";
import { Rng } from "../../core/rng.ts";
import { relativeError } from "./golden.ts";

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
  { name: "3x3x3, one past frame, residual", x: [2, 6, 5, 3], past: 1, out: 5, plan: causal(3, 3), bias: true, residual: true },
  { name: "3x3x3, two past frames, one frame", x: [1, 4, 4, 6], past: 2, out: 3, plan: causal(3, 3) },
  { name: "3x3x3, filled channels", x: [2, 5, 6, 8], past: 0, out: 6, plan: causal(3, 3), bias: true, inner: 3 },
  { name: "3x3x3, narrower than the kernel", x: [1, 1, 2, 2], past: 0, out: 2, plan: causal(3, 3) },
  { name: "1x3x3, stride 2", x: [3, 6, 8, 4], past: 0, out: 4, plan: HALVE, bias: true },
  { name: "3x1x1, split in two", x: [3, 4, 5, 4], past: 2, out: 8, plan: causal(3, 1, { split: 2 }), bias: true, residual: true },
  { name: "3x1x1, stride 2, first", x: [5, 3, 4, 6], past: 0, out: 6, plan: causal(3, 1, { strideT: 2, padT: 0 }), bias: true },
  { name: "3x1x1, stride 2, later", x: [4, 3, 4, 6], past: 1, out: 6, plan: causal(3, 1, { strideT: 2, padT: 1 }), bias: true },
  { name: "1x3x3 on the doubled grid", x: [2, 5, 6, 4], past: 0, out: 3, plan: DOUBLE, bias: true },
  { name: "1x3x3 on the doubled grid, residual", x: [1, 3, 3, 4], past: 0, out: 8, plan: DOUBLE, residual: true },
];

/** Sizes of the real network, with tails of every tile: the kernels of a GPU take other paths there. */
export const CONV_CASES_WIDE: ConvCase[] = [
  { name: "96 to 96, whole tiles", x: [3, 48, 32, 96], past: 2, out: 96, plan: causal(3, 3), bias: true, residual: true },
  { name: "96 to 96, many tiles", x: [9, 80, 96, 96], past: 0, out: 96, plan: causal(3, 3), bias: true },
  { name: "96 to 96, tails", x: [2, 27, 41, 96], past: 1, out: 96, plan: causal(3, 3), bias: true, residual: true },
  { name: "96 to 192", x: [2, 30, 20, 96], past: 2, out: 192, plan: causal(3, 3), bias: true },
  { name: "192 to 192, tails", x: [3, 37, 29, 192], past: 2, out: 192, plan: causal(3, 3), bias: true, residual: true },
  { name: "192 to 192, tall tiles", x: [2, 60, 8, 192], past: 0, out: 192, plan: causal(3, 3) },
  { name: "192 to 384", x: [2, 16, 24, 192], past: 2, out: 384, plan: causal(3, 3), bias: true },
  { name: "384 to 384, one frame", x: [1, 30, 52, 384], past: 2, out: 384, plan: causal(3, 3), bias: true, residual: true },
  { name: "pixels to 96", x: [3, 40, 52, 8], past: 2, out: 96, plan: causal(3, 3), bias: true, inner: 3 },
  { name: "96 to pixels", x: [2, 40, 52, 96], past: 2, out: 3, plan: causal(3, 3), bias: true },
  { name: "latents to 384", x: [3, 15, 13, 16], past: 0, out: 384, plan: causal(3, 3), bias: true },
  { name: "384 to moments", x: [2, 15, 13, 384], past: 2, out: 32, plan: causal(3, 3), bias: true },
  { name: "96, halved", x: [2, 52, 70, 96], past: 0, out: 96, plan: HALVE, bias: true },
  { name: "192, halved", x: [2, 36, 40, 192], past: 0, out: 192, plan: HALVE, bias: true },
  { name: "384, halved", x: [1, 30, 42, 384], past: 0, out: 384, plan: HALVE, bias: true },
  { name: "384 to two frames", x: [3, 20, 18, 384], past: 2, out: 768, plan: causal(3, 1, { split: 2 }), bias: true },
  { name: "192, frames halved, first", x: [5, 18, 24, 192], past: 0, out: 192, plan: causal(3, 1, { strideT: 2, padT: 0 }), bias: true },
  { name: "384, frames halved, later", x: [4, 18, 24, 384], past: 1, out: 384, plan: causal(3, 1, { strideT: 2, padT: 1 }), bias: true },
  { name: "384 to 192, doubled", x: [2, 15, 26, 384], past: 0, out: 192, plan: DOUBLE, bias: true },
  { name: "192 to 96, doubled", x: [2, 33, 18, 192], past: 0, out: 96, plan: DOUBLE, bias: true },
];

const TOLERANCE: Partial<Record<DType, number>> = { f64: 1e-12, f32: 1e-5, f16: 2e-3, bf16: 1e-2 };

/** The sum itself, from the definition: no packed weights, the doubled grid written out. */
function naive(c: ConvCase, x: Float64Array, past: Float64Array, w: Float64Array, b: Float64Array | null, r: Float64Array | null): Float64Array {
  const { x: [T, Y, X, C], plan: p } = c;
  const inner = c.inner ?? C;
  const { sum: [To, Yo, Xo, O], y } = convShape(c.x, c.past, c.out, p);
  const grow = p.upsample ? 2 : 1;
  const [rows, columns] = [Yo * grow, Xo * grow];
  const at = (t: number, row: number, column: number, ch: number): number => {
    const [i, j] = [Math.floor(row / grow), Math.floor(column / grow)];
    if (i < 0 || i >= Y || j < 0 || j >= X || t >= T || t < -c.past) return 0;
    return t < 0 ? past[(((c.past + t) * Y + i) * X + j) * C + ch] : x[((t * Y + i) * X + j) * C + ch];
  };
  const out = new Float64Array(y.reduce((n, d) => n * d, 1));
  const width = O / p.split;
  for (let t = 0; t < To; t++) for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) for (let o = 0; o < O; o++) {
    let v = b ? b[o] : 0;
    for (let dt = 0; dt < p.kernel; dt++) for (let dy = 0; dy < p.side; dy++) for (let dx = 0; dx < p.side; dx++) for (let ch = 0; ch < inner; ch++) {
      v += w[(((o * inner + ch) * p.kernel + dt) * p.side + dy) * p.side + dx] * at(t * p.strideT + dt - p.padT, i * p.stride + dy - p.pad, j * p.stride + dx - p.pad, ch);
    }
    const to = (((p.split * t + Math.floor(o / width)) * rows + i) * columns + j) * width + (o % width);
    out[to] = v + (r ? r[to] : 0);
  }
  return out;
}

/**
 * conv3d in `dtype` against the definition or, where `reference` is given, against that device in f64 on the same inputs. The inputs are
 * small whole numbers over eight, exact in every dtype.
 */
export function checkConv(device: Device, c: ConvCase, dtype: DType, reference: Device | null = null): void {
  const [T, Y, X, C] = c.x;
  const inner = c.inner ?? C;
  const rng = new Rng(3, 5);
  const draw = (n: number): Float64Array => Float64Array.from({ length: n }, () => (rng.below(17) - 8) / 8);
  const filled = (frames: number): Float64Array => draw(frames * Y * X * C).map((v, i) => (i % C < inner ? v : 0));
  const { y: shape } = convShape(c.x, c.past, c.out, c.plan);
  const [x, past, w] = [filled(T), filled(c.past), draw(c.out * inner * c.plan.kernel * c.plan.side ** 2)];
  const b = c.bias ? draw(c.out) : null;
  const r = c.residual ? draw(shape.reduce((n, d) => n * d, 1)) : null;
  const on = (d: Device, as: DType): Float64Array => {
    using _scope = d.scope();
    const packed = packConv(d.fromValues(w, [c.out, inner, c.plan.kernel, c.plan.side, c.plan.side], as), C, c.plan);
    const y = conv3d({
      x: d.fromValues(x, c.x, as),
      past: c.past > 0 ? d.fromValues(past, [c.past, Y, X, C], as) : null,
      w: packed,
      b: b && d.fromValues(b, [c.out], as),
      residual: r && d.fromValues(r, shape, as),
    }, c.plan);
    expect(y.shape).toEqual(shape);
    return y.values();
  };
  const want = reference ? on(reference, "f64") : naive(c, x, past, w, b, r);
  expect(relativeError(on(device, dtype), want)).toBeLessThan(TOLERANCE[dtype] as number);
}
