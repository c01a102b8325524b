import { expect } from "bun:test";
import type { DType } from "../../core/dtype.ts";
import type { AnyOp } from "../../core/op.ts";
import type { Device } from "../../core/tensor.ts";
import { caseInputs, dot, evaluateCase, TOLERANCE, type Evaluated, type OpCase } from "./check_op.ts";
import { cpu } from "./device.ts";
import { relativeError } from "./golden.ts";

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
const moved = (x: Values, d: Values, h: number): Values => x.map((v, i) => (v && d[i] ? v.map((e, k) => e + h * (d[i] as Float64Array)[k]) : v));
const bytes = (v: Float64Array): Uint8Array => new Uint8Array(v.buffer, v.byteOffset, v.byteLength);
const sameBits = (a: Float64Array | null, b: Float64Array | null): boolean => (a === null || b === null ? a === b : Buffer.compare(bytes(a), bytes(b)) === 0);

/** Tangent against the central difference, f64. */
export const checkTangent: Check = (device, op, c) => {
  const x = inputs(c, 1, "f64");
  const dots = tangentsOf(c, inputs(c, 2, "f64"));
  const { yDot } = evaluateCase(device, op, c, x, dots, null, "f64");
  const at = (h: number) => evaluateCase(device, op, c, moved(x, dots, h), null, null, "f64").y;
  const [up, down] = [at(H), at(-H)];
  expect(relativeError(yDot as Float64Array, up.map((v, i) => (v - down[i]) / (2 * H)))).toBeLessThan(TOLERANCE.f64.difference);
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

/** Value, tangent and gradients of a device at a dtype, and what f64 on the CPU makes of the same rounded inputs. */
function pair(device: Device, op: AnyOp, c: OpCase, dtype: FloatType): { run: (on: Device, as: FloatType) => Evaluated; got: Evaluated; want: Evaluated } {
  const x = inputs(c, 6, dtype);
  const dots = tangentsOf(c, inputs(c, 7, dtype));
  const plain = evaluateCase(cpu(), op, c, x, null, null, "f64");
  const exactInF32 = dtype === "f32" || dtype === "f64";
  const yBar = plain.y.map((_, i) => (exactInF32 ? Math.fround(Math.sin(1 + 3 * i)) : i % 2 === 0 ? 1 : -0.5));
  const run = (on: Device, as: FloatType): Evaluated => evaluateCase(on, op, c, x, dots, yBar, as);
  return { run, got: run(device, dtype), want: run(cpu(), "f64") };
}

type Part = "value" | "tangent" | "gradient";
const parts = (e: Evaluated): [what: string, part: Part, v: Float64Array][] => [
  ["value", "value", e.y],
  ["tangent", "tangent", e.yDot as Float64Array],
  ...e.bars.flatMap((bar, i): [string, Part, Float64Array][] => (bar ? [[`gradient of input ${i}`, "gradient", bar]] : [])),
];

/** A dtype against f64 on the same inputs and device; the bound is TOLERANCE. */
export function checkFollowsF64(device: Device, op: AnyOp, c: OpCase, dtype: "f32" | "bf16" | "f16"): void {
  const { got, want } = pair(device, op, c, dtype);
  const exact = parts(want);
  parts(got).forEach(([what, part, v], i) => {
    const [error, bound] = [relativeError(v, exact[i][2]), TOLERANCE[dtype][part]];
    expect({ what, error, bound, holds: error < bound }).toMatchObject({ holds: true });
  });
}

/** A device against f64 on the CPU: at most twice the CPU library's own error at that dtype, plus the floor of TOLERANCE. */
export function checkBesideCpu(device: Device, op: AnyOp, c: OpCase, dtype: FloatType): void {
  const { run, got, want } = pair(device, op, c, dtype);
  const exact = parts(want);
  const own = parts(run(cpu(), dtype));
  // A gradient that vanishes (of one key's score, say) is measured by the largest gradient of the case.
  const most = (v: Float64Array): number => v.reduce((m, e) => Math.max(m, Math.abs(e)), 0);
  const scale = Math.max(...exact.map(([, part, v]) => (part === "gradient" ? most(v) : 0)));
  const errorOf = (v: Float64Array, i: number): number => (exact[i][1] === "gradient" && most(exact[i][2]) < 1e-12 * scale ? most(v) / scale : relativeError(v, exact[i][2]));
  parts(got).forEach(([what, part, v], i) => {
    const cpuError = errorOf(own[i][2], i);
    const [error, bound] = [errorOf(v, i), 2 * cpuError + TOLERANCE[dtype].floor[part]];
    expect({ what, error, cpuError, bound, holds: error <= bound }).toMatchObject({ holds: true });
  });
}

/** The tangent pass has the primal of the plain pass, and two runs are equal, both bit by bit. */
export function checkRepeats(device: Device, op: AnyOp, c: OpCase, dtypes: readonly DType[]): void {
  for (const dtype of dtypes) {
    const x = inputs(c, 8, dtype);
    const dots = tangentsOf(c, inputs(c, 9, dtype));
    const plain = evaluateCase(device, op, c, x, null, null, dtype);
    const yBar = plain.y.map((_, i) => 1 / (1 + i));
    const [a, b] = [evaluateCase(device, op, c, x, dots, yBar, dtype), evaluateCase(device, op, c, x, dots, yBar, dtype)];
    // The one exception that rcm.h makes.
    const rounded = op.name === "attention" && device.backend.kind === "cuda" && (dtype === "bf16" || dtype === "f16");
    const same = rounded ? relativeError(a.y, plain.y) < TOLERANCE[dtype].value : sameBits(a.y, plain.y);
    expect([dtype, "primal of the tangent pass", same]).toEqual([dtype, "primal of the tangent pass", true]);
    expect([dtype, "two runs", sameBits(a.y, b.y) && sameBits(a.yDot, b.yDot) && a.bars.every((bar, i) => sameBits(bar, b.bars[i]))]).toEqual([dtype, "two runs", true]);
  }
}
