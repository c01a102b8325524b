import type { DType } from "../../core/dtype.ts";
import type { AnyOp } from "../../core/op.ts";
import { leafNode, Tape, type Var } from "../../core/tape.ts";
import { statDType, type Device, type Tensor } from "../../core/tensor.ts";

/** One use of an op: shapes of its inputs and its parameters. */
export interface OpCase<P = unknown> {
  name: string;
  /** Input shapes; null: absent. */
  shapes: (readonly number[] | null)[];
  /** Parameters for a storage dtype. */
  params: (device: Device, dtype: DType) => P;
  /** Inputs that have a tangent; parameters have none. */
  tangent: number[];
  /** Inputs whose cotangent accumulates (parameters, modulation): their buffer starts filled. */
  accumulates?: number[];
  /** Inputs stored in stat dtype (modulation) or f64 (times) whatever the case's dtype. */
  stored?: Record<number, "stat" | "f64">;
  /** Inputs without cotangent. */
  constant?: number[];
  /** Values are |x| + 0.5 or so where the op needs it. */
  scale?: number;
}

/**
 * One table for every op: relative errors (max |a - b| over max |b|). In 16 bits the bound is twice the error of a
 * plain run over the same inputs (op_checks.ts). `floor` is what a GPU may add to twice the CPU library's own error: in
 * 16 bits half an ulp at the top of the range for values and one ulp for tangents and gradients (a kernel may round
 * what it hands from one matmul to the next), in f32 and f64 the growth of a sum kept in the storage type (the CPU
 * keeps many in f64).
 */
export const TOLERANCE = {
  f64: { difference: 2e-7, adjoint: 1e-11, floor: { value: 1e-13, tangent: 1e-12, gradient: 1e-12 } },
  f32: { value: 3e-6, tangent: 2e-5, gradient: 2e-5, floor: { value: 1e-6, tangent: 3e-6, gradient: 5e-6 } },
  bf16: { floor: { value: 2e-3, tangent: 4e-3, gradient: 4e-3 } },
  f16: { floor: { value: 5e-4, tangent: 1e-3, gradient: 1e-3 } },
} as const;

export interface Evaluated {
  y: Float64Array;
  yDot: Float64Array | null;
  bars: (Float64Array | null)[];
  /** How the run stored its value, its gradients, and what it kept for backward: the value, then the op's own. */
  stored: { y: DType; bars: (DType | null)[]; kept: DType[] };
}

export interface Evaluation {
  device: Device;
  /** One op, or several on the tape. */
  run: (tape: Tape, inputs: readonly (Var | null)[], p: unknown) => Var;
  c: OpCase;
  /** Inputs, their tangents, and the cotangent of the value; null: none. */
  x: (Float64Array | null)[];
  dots: (Float64Array | null)[] | null;
  yBar: Float64Array | null;
  dtype: DType;
  /** Storage that what is kept for backward is rounded to; default: as it is. */
  kept?: readonly DType[];
}

/** Storage dtype of input i in a case of `dtype`. */
export function storedDType(c: OpCase, i: number, dtype: DType): DType {
  const stored = c.stored?.[i];
  if (stored === "f64") return "f64";
  return stored === "stat" ? statDType(dtype) : dtype;
}

/** Host inputs of a case from a seed, rounded to the storage dtype by a round trip. */
export function caseInputs(device: Device, c: OpCase, seed: number, dtype: DType): (Float64Array | null)[] {
  return c.shapes.map((shape, i) => {
    if (shape === null) return null;
    const t = device.randn(shape, "f64", seed, 100 + i);
    const scaled = device.fromValues(t.values().map((v) => v * (c.scale ?? 1)), shape, storedDType(c, i, dtype));
    return scaled.values();
  });
}

/** Runs ops on host inputs: value, tangent along `dots` and cotangents for `yBar`. */
export function evaluate({ device, run, c, x, dots, yBar, dtype, kept }: Evaluation): Evaluated {
  using _scope = device.scope();
  const up = (v: Float64Array, i: number): Tensor =>
    device.fromValues(v, c.shapes[i] as readonly number[], storedDType(c, i, dtype));
  const tape = new Tape(device, { record: yBar !== null });
  const inputs: (Var | null)[] = x.map((v, i) => {
    if (v === null) return null;
    const t = up(v, i);
    const dot = dots?.[i] ? up(dots[i], i) : null;
    if (c.constant?.includes(i)) return { x: t, dot, node: null };
    const grad = c.accumulates?.includes(i) ? device.zeros(t.shape, statDType(dtype)) : null;
    if (grad) grad.fill(0.5);
    return { x: t, dot, node: leafNode(t, grad) };
  });
  const out = run(tape, inputs, c.params(device, dtype));
  const [y, yDot] = [out.x.values(), out.dot?.values() ?? null];
  const saved = [out.x, ...(out.node?.saved ?? [])];
  const stored = { y: out.x.dtype, bars: [] as (DType | null)[], kept: saved.map((t) => t.dtype) };
  if (yBar === null) return { y, yDot, bars: [], stored };
  kept?.forEach((as, i) => saved[i].set(saved[i].to(as).to(saved[i].dtype)));
  tape.backward(out, device.fromValues(yBar, out.x.shape, out.x.dtype));
  const bars = inputs.map((v) => {
    if (!v?.node) return null;
    if (v.node.grad) return v.node.grad.values().map((g) => g - 0.5);
    return v.node.bar?.values() ?? new Float64Array(v.x.numel);
  });
  stored.bars = inputs.map((v) => (v?.node ? (v.node.grad ?? v.x).dtype : null));
  return { y, yDot, bars, stored };
}

/** Runs an op on host inputs: value, tangent along `dots` and cotangents for `yBar`. */
export const evaluateCase = (
  device: Device, op: AnyOp, c: OpCase, x: (Float64Array | null)[], dots: (Float64Array | null)[] | null,
  yBar: Float64Array | null, dtype: DType,
): Evaluated => evaluate({ device, run: (tape, inputs, p) => tape.run(op, inputs, p), c, x, dots, yBar, dtype });

export const dot = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  let s = 0;
  for (let i = 0; i < a.length; i++) s += a[i] * b[i];
  return s;
};
