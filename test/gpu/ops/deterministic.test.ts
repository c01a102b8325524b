import { describe, expect } from "bun:test";
import { attentionOp } from "../../../core/ops/attention.ts";
import type { DType } from "../../../core/dtype.ts";
import type { Device } from "../../../core/tensor.ts";
import { caseInputs, evaluateCase, TOLERANCE, type Evaluated, type OpCase } from "../../harness/check_op.ts";
import { cpu, gpuTier } from "../../harness/device.ts";
import { relativeError } from "../../harness/golden.ts";

/** rcm_deterministic(0): attention's backward may come from cuDNN; what it gives is as exact, and the mode ends. */

const { device, test } = gpuTier();

function evaluate(on: Device, dtype: DType, K: number, L: number): Evaluated {
  const shape = [1, L, 2 * K];
  const params = () => ({ heads: 2, scale: null }) as never;
  const c: OpCase = { name: "", shapes: [shape, shape, shape], params, tangent: [] };
  const x = caseInputs(cpu(), c, 3, "bf16");
  const [yBar] = caseInputs(cpu(), c, 4, "bf16");
  return evaluateCase(on, attentionOp, c, x, null, yBar, dtype);
}

function onGpu(K: number, L: number, mode: 0 | 1): Evaluated {
  device().lib.deterministic(mode);
  try {
    return evaluate(device(), "bf16", K, L);
  } finally {
    device().lib.deterministic(1);
  }
}

describe("gpu: sums in any order", () => {
  for (const [K, L] of [[64, 2304], [64, 2500], [128, 400]] as const) {
    test(`attention backward, K=${K} L=${L}`, () => {
      const [free, fixed, again] = [onGpu(K, L, 0), onGpu(K, L, 1), onGpu(K, L, 1)];
      expect(free.y).toEqual(fixed.y);
      expect(again).toEqual(fixed);
      const [exact, own] = [evaluate(cpu(), "f64", K, L), evaluate(cpu(), "bf16", K, L)];
      exact.bars.forEach((bar, i) => {
        const [want, got] = [bar as Float64Array, free.bars[i] as Float64Array];
        const bound = 2 * relativeError(own.bars[i] as Float64Array, want) + TOLERANCE.bf16.floor.gradient;
        expect(relativeError(got, want)).toBeLessThanOrEqual(bound);
      });
    }, 120_000);
  }
});
