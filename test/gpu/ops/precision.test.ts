import { describe, expect } from "bun:test";
import { attentionOp } from "../../../core/ops/attention.ts";
import { linearOp } from "../../../core/ops/linear.ts";
import type { DType } from "../../../core/dtype.ts";
import type { AnyOp } from "../../../core/op.ts";
import { evaluateCase, caseInputs, type OpCase } from "../../harness/check_op.ts";
import { cpu, gpuTier } from "../../harness/device.ts";

/** rcm_f32_products: split products are as exact as they say, and the mode is off again afterwards. */

const { device, test } = gpuTier();

const relativeL2 = (a: Float64Array, b: Float64Array): number => {
  let [difference, size] = [0, 0];
  for (let i = 0; i < b.length; i++) {
    difference += (a[i] - b[i]) ** 2;
    size += b[i] ** 2;
  }
  return Math.sqrt(difference / size);
};

/** Errors of value and tangent against f64 on the CPU. */
function errors(op: AnyOp, c: OpCase, dtype: DType, split: boolean): { value: number; tangent: number } {
  // Inputs that bf16 holds: only the arithmetic is judged.
  const [x, d] = [1, 2].map((seed) => caseInputs(cpu(), c, seed, "bf16"));
  const dots = d.map((v, i) => (c.tangent.includes(i) ? v : null));
  const exact = evaluateCase(cpu(), op, c, x, dots, null, "f64");
  const run = () => evaluateCase(device(), op, c, x, dots, null, dtype);
  const got = split ? device().splitProducts(run) : run();
  return {
    value: relativeL2(got.y, exact.y),
    tangent: relativeL2(got.yDot as Float64Array, exact.yDot as Float64Array),
  };
}

const self = (K: number, Lq: number, Lk: number, tangent: number[]): OpCase => ({
  name: "", shapes: [[2, Lq, 3 * K], [2, Lk, 3 * K], [2, Lk, 3 * K]],
  params: () => ({ heads: 3, scale: null }) as never, tangent,
});

describe("gpu: f32-grade products", () => {
  for (const [K, Lq, Lk, tangent] of [
    [128, 300, 300, [0, 1, 2]], [64, 129, 257, [0, 1, 2]], [128, 300, 77, [0]], [32, 40, 40, [1]], [24, 70, 33, [2]],
  ] as const) {
    const c = self(K, Lq, Lk, [...tangent]);
    test(`attention K=${K} Lq=${Lq} Lk=${Lk}, tangents ${tangent}: at least 10 times nearer than bf16`, () => {
      const [split, coarse] = [
        errors(attentionOp, c, "f32", true),
        errors(attentionOp, c, "bf16", false),
      ];
      expect(split.value).toBeLessThan(2e-5);
      expect(split.tangent).toBeLessThan(5e-5);
      expect(coarse.tangent / split.tangent).toBeGreaterThan(10);
      expect(coarse.value / split.value).toBeGreaterThan(10);
    });
  }
  test("linear: f32 factors in halves", () => {
    const c: OpCase = {
      name: "", shapes: [[3, 100, 384], [256, 384], [256]], params: () => ({ dtype: null }) as never, tangent: [0],
    };
    const [split, plain] = [
      errors(linearOp, c, "f32", true),
      errors(linearOp, c, "f32", false),
    ];
    expect(split.value).toBeLessThan(1e-5);
    expect(split.tangent).toBeLessThan(1e-5);
    expect(plain.value).toBeLessThan(1e-6);
  });
  test("f32 alone stays f32 afterwards", () => {
    const c = self(64, 100, 100, [0, 1, 2]);
    errors(attentionOp, c, "f32", true);
    expect(errors(attentionOp, c, "f32", false).tangent).toBeLessThan(2e-6);
  });
  test("the primal is the same bit for bit with and without a tangent", () => {
    const c = self(128, 200, 130, [0, 1, 2]);
    const [x, d] = [1, 2].map((seed) => caseInputs(cpu(), c, seed, "f32"));
    const [with_, without] = device().splitProducts(() => [
      evaluateCase(device(), attentionOp, c, x, d, null, "f32"),
      evaluateCase(device(), attentionOp, c, x, null, null, "f32"),
    ]);
    expect(Buffer.compare(Buffer.from(with_.y.buffer), Buffer.from(without.y.buffer))).toBe(0);
  });
});
