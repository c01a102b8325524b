import { expect } from "bun:test";
import type { DType } from "../../core/dtype.ts";
import type { AnyOp } from "../../core/op.ts";
import type { Tape, Var } from "../../core/tape.ts";
import type { Device } from "../../core/tensor.ts";
import { activationOp, type ActivationKind } from "../../core/ops/activation.ts";
import { linearOp } from "../../core/ops/linear.ts";
import { caseInputs, dot, evaluate, evaluateCase, TOLERANCE } from "./check_op.ts";
import type { Evaluated, Evaluation, OpCase } from "./check_op.ts";
import { cpu } from "./device.ts";
import { relativeError } from "./golden.ts";
import { plain, storedAs } from "./reference/plain.ts";

/** What both tiers ask of an op: `op` and `c` come from a table of cases, the device from the tier. */
type Check = (device: Device, op: AnyOp, c: OpCase) => void;
type Values = (Float64Array | null)[];
type FloatType = "f64" | "f32" | "bf16" | "f16";

const H = 1e-5;

/** Inputs are drawn by the CPU library whatever the device, so that all devices see the same numbers. */
function inputs(c: OpCase, seed: number, dtype: DType): Values {
  using _scope = cpu().scope();
  return caseInputs(cpu(), c, seed, dtype);
}
const tangentsOf = (c: OpCase, all: Values): Values => all.map((v, i) => (c.tangent.includes(i) ? v : null));
const moved = (x: Values, d: Values, h: number): Values =>
  x.map((v, i) => (v && d[i] ? v.map((e, k) => e + h * (d[i] as Float64Array)[k]) : v));
const bytes = (v: Float64Array): Uint8Array => new Uint8Array(v.buffer, v.byteOffset, v.byteLength);
const sameBits = (a: Float64Array | null, b: Float64Array | null): boolean =>
  a === null || b === null ? a === b : Buffer.compare(bytes(a), bytes(b)) === 0;

/** Tangent against the central difference, f64. */
export const checkTangent: Check = (device, op, c) => {
  const x = inputs(c, 1, "f64");
  const dots = tangentsOf(c, inputs(c, 2, "f64"));
  const { yDot } = evaluateCase(device, op, c, x, dots, null, "f64");
  const at = (h: number) => evaluateCase(device, op, c, moved(x, dots, h), null, null, "f64").y;
  const [up, down] = [at(H), at(-H)];
  expect(
    relativeError(
      yDot as Float64Array,
      up.map((v, i) => (v - down[i]) / (2 * H)),
    ),
  ).toBeLessThan(TOLERANCE.f64.difference);
};

/** <yBar, J d> = <J^T yBar, d>, and every gradient, parameters too, along a random direction by difference; f64. */
export const checkAdjoint: Check = (device, op, c) => {
  const x = inputs(c, 3, "f64");
  const dots = tangentsOf(c, inputs(c, 4, "f64"));
  const plain = evaluateCase(device, op, c, x, null, null, "f64");
  const yBar = plain.y.map((_, i) => Math.sin(1 + 3 * i));
  const { yDot, bars } = evaluateCase(device, op, c, x, dots, yBar, "f64");
  const left = dot(yBar, yDot as Float64Array);
  const right = dots.reduce((s, d, i) => s + (d && bars[i] ? dot(bars[i] as Float64Array, d) : 0), 0);
  const size = Math.sqrt(dot(yBar, yBar) * dot(yDot as Float64Array, yDot as Float64Array));
  expect(Math.abs(left - right)).toBeLessThan(TOLERANCE.f64.adjoint * size + 1e-13);
  const directions = inputs(c, 5, "f64");
  bars.forEach((bar, i) => {
    if (!bar) return;
    const direction = directions[i] as Float64Array;
    const only = directions.map((d, k) => (k === i ? d : null));
    const at = (h: number) => dot(yBar, evaluateCase(device, op, c, moved(x, only, h), null, null, "f64").y);
    const want = (at(H) - at(-H)) / (2 * H);
    const scale = Math.max(Math.abs(want), 1e-3 * Math.sqrt(dot(bar, bar) * dot(direction, direction)), 1e-9);
    expect(Math.abs(dot(bar, direction) - want) / scale).toBeLessThan(20 * TOLERANCE.f64.difference);
  });
};

/** Inputs and cotangent that `dtype` holds exactly, for runs in any dtype on any device. */
function sharedInputs(c: OpCase, op: AnyOp, dtype: FloatType): Pick<Evaluation, "c" | "x" | "dots" | "yBar"> {
  const x = inputs(c, 6, dtype);
  const dots = tangentsOf(c, inputs(c, 7, dtype));
  const { y } = evaluateCase(cpu(), op, c, x, null, null, "f64");
  const exactInF32 = dtype === "f32" || dtype === "f64";
  const yBar = y.map((_, i) => (exactInF32 ? Math.fround(Math.sin(1 + 3 * i)) : i % 2 === 0 ? 1 : -0.5));
  return { c, x, dots, yBar };
}

/** Value, tangent and gradients of a device at a dtype, and what f64 on the CPU makes of the same inputs. */
function pair(device: Device, op: AnyOp, c: OpCase, dtype: FloatType) {
  const shared = sharedInputs(c, op, dtype);
  const one: Evaluation["run"] = (tape, x, p) => tape.run(op, x, p);
  const run = (on: Device, as: FloatType): Evaluated => evaluate({ ...shared, device: on, run: one, dtype: as });
  return { shared, one, run, got: run(device, dtype), want: run(cpu(), "f64") };
}

/** Fused ops as the ops they stand for. */
const UNFUSED: Record<string, (tape: Tape, x: readonly (Var | null)[], p: { kind: ActivationKind }) => Var> = {
  linear_gelu: (tape, [x, w, b], p) =>
    tape.run(activationOp, [tape.run(linearOp, [x, w, b] as [Var, Var, Var | null], { dtype: null })], p),
};

type Part = "value" | "tangent" | "gradient";
const parts = (e: Evaluated): [what: string, part: Part, v: Float64Array][] => [
  ["value", "value", e.y],
  ["tangent", "tangent", e.yDot as Float64Array],
  ...e.bars.flatMap((bar, i): [string, Part, Float64Array][] =>
    bar ? [[`gradient of input ${i}`, "gradient", bar]] : [],
  ),
];

/** f32 against f64 on the same inputs and device; the bound is TOLERANCE. */
export function checkF32(device: Device, op: AnyOp, c: OpCase): void {
  const { got, want } = pair(device, op, c, "f32");
  const exact = parts(want);
  parts(got).forEach(([what, part, v], i) => {
    const [error, bound] = [relativeError(v, exact[i][2]), TOLERANCE.f32[part]];
    expect({ what, error, bound, holds: error < bound }).toMatchObject({ holds: true });
  });
}

/**
 * 16 bits against f64 on the same inputs: at most twice the error of a plain run, and what sums in f32 lose. Plain is
 * the run in f64 where everything that the op stores is rounded to the type it is stored in; for a fused op, the ops it
 * stands for one by one.
 */
export function check16Bits(device: Device, op: AnyOp, c: OpCase, dtype: "bf16" | "f16"): void {
  const { shared, one, got, want } = pair(device, op, c, dtype);
  const unfused = UNFUSED[op.name] as Evaluation["run"] | undefined;
  const plainly = unfused
    ? evaluate({ ...shared, device: cpu(), run: unfused, dtype })
    : rounded(evaluate({ ...shared, device: cpu(), run: one, dtype: "f64", kept: got.stored.kept }), got.stored);
  const [exact, yardstick] = [parts(want), parts(plainly)];
  parts(got).forEach(([what, part, v], i) => {
    const plainError = relativeError(yardstick[i][2], exact[i][2]);
    const [error, bound] = [relativeError(v, exact[i][2]), 2 * plainError + TOLERANCE.f32[part]];
    expect({ what, error, plainError, bound, holds: error <= bound }).toMatchObject({ holds: true });
  });
}

function rounded({ y, yDot, bars }: Evaluated, stored: Evaluated["stored"]): Evaluated {
  const as = (dtype: DType, v: Float64Array): Float64Array => storedAs(dtype, plain([v.length], v)).v;
  return {
    y: as(stored.y, y),
    yDot: yDot && as(stored.y, yDot),
    bars: bars.map((bar, i) => bar && as(stored.bars[i] as DType, bar)),
    stored,
  };
}

/**
 * A device against f64 on the CPU: at most twice the CPU library's own error at that dtype, plus the floor of
 * TOLERANCE.
 */
export function checkBesideCpu(device: Device, op: AnyOp, c: OpCase, dtype: FloatType): void {
  const { run, got, want } = pair(device, op, c, dtype);
  const exact = parts(want);
  const own = parts(run(cpu(), dtype));
  // A gradient that vanishes (of one key's score, say) is measured by the largest gradient of the case.
  const most = (v: Float64Array): number => v.reduce((m, e) => Math.max(m, Math.abs(e)), 0);
  const scale = Math.max(...exact.map(([, part, v]) => (part === "gradient" ? most(v) : 0)));
  const errorOf = (v: Float64Array, i: number): number => {
    const [, part, want] = exact[i];
    return part === "gradient" && most(want) < 1e-12 * scale ? most(v) / scale : relativeError(v, want);
  };
  parts(got).forEach(([what, part, v], i) => {
    const cpuError = errorOf(own[i][2], i);
    const [error, bound] = [errorOf(v, i), 2 * cpuError + TOLERANCE[dtype].floor[part]];
    expect({ what, error, cpuError, bound, holds: error <= bound }).toMatchObject({ holds: true });
  });
}

/** The tangent pass has the primal of the plain pass, and two runs are equal, both bit by bit. */
export function checkRepeats(device: Device, op: AnyOp, c: OpCase, dtypes: readonly FloatType[]): void {
  for (const dtype of dtypes) {
    const x = inputs(c, 8, dtype);
    const dots = tangentsOf(c, inputs(c, 9, dtype));
    const run = (on: Device, as: FloatType): Float64Array => evaluateCase(on, op, c, x, null, null, as).y;
    const y = run(device, dtype);
    const yBar = y.map((_, i) => 1 / (1 + i));
    const [a, b] = [0, 1].map(() => evaluateCase(device, op, c, x, dots, yBar, dtype));
    // The one exception that rcm.h makes: the plain pass may round otherwise, and is as near to f64 as any.
    if (op.name === "attention" && device.backend.kind === "cuda" && (dtype === "bf16" || dtype === "f16")) {
      const exact = run(cpu(), "f64");
      const bound = 2 * relativeError(run(cpu(), dtype), exact) + TOLERANCE[dtype].floor.value;
      expect(relativeError(y, exact)).toBeLessThanOrEqual(bound);
    } else
      expect([dtype, "primal of the tangent pass", sameBits(a.y, y)]).toEqual([
        dtype,
        "primal of the tangent pass",
        true,
      ]);
    const same = sameBits(a.y, b.y) && sameBits(a.yDot, b.yDot) && a.bars.every((bar, i) => sameBits(bar, b.bars[i]));
    expect([dtype, "two runs", same]).toEqual([dtype, "two runs", true]);
  }
}
