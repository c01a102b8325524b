import { describe, expect } from "bun:test";
import { attentionOp } from "../../core/ops/attention.ts";
import { caseInputs, evaluateCase, TOLERANCE, type Evaluated, type OpCase } from "../harness/check_op.ts";
import { gpuTier } from "../harness/device.ts";

/** rcm_deterministic(0): attention's backward may come from cuDNN; what it gives is the same within rounding, and the mode ends. */

const { device, test } = gpuTier();

function evaluate(K: number, L: number, mode: 0 | 1): Evaluated {
  const c: OpCase = { name: "", shapes: [[1, L, 2 * K], [1, L, 2 * K], [1, L, 2 * K]], params: () => ({ heads: 2, scale: null }) as never, tangent: [] };
  const x = caseInputs(device(), c, 3, "bf16");
  const yBar = caseInputs(device(), c, 4, "bf16")[0] as Float64Array;
  device().lib.deterministic(mode);
  try {
    return evaluateCase(device(), attentionOp, c, x, null, yBar, "bf16");
  } finally {
    device().lib.deterministic(1);
  }
}

const farthest = (a: Float64Array, b: Float64Array): number => a.reduce((most, v, i) => Math.max(most, Math.abs(v - b[i])), 0) / b.reduce((most, v) => Math.max(most, Math.abs(v)), 0);

describe("gpu: sums in any order", () => {
  for (const [K, L] of [[64, 2304], [64, 2500], [128, 400]] as const) {
    test(`attention backward, K=${K} L=${L}`, () => {
      const [free, fixed, again] = [evaluate(K, L, 0), evaluate(K, L, 1), evaluate(K, L, 1)];
      expect(free.y).toEqual(fixed.y);
      fixed.bars.forEach((bar, i) => expect(farthest(free.bars[i] as Float64Array, bar as Float64Array)).toBeLessThan(TOLERANCE.bf16.gradient));
      expect(again).toEqual(fixed);
    });
  }
});
