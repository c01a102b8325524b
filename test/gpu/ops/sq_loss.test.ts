import { describe, expect } from "bun:test";
import type { DType } from "../../../core/dtype.ts";
import { Rng } from "../../../core/rng.ts";
import type { Device } from "../../../core/tensor.ts";
import { cpu, gpuTier } from "../../harness/device.ts";

/** sq_loss of what is not finite, or as small as a type can say: the GPU widens halves by moving their bits. */

const { device, test } = gpuTier();
const B = 3;
const SMALLEST = { bf16: 2 ** -133, f16: 2 ** -24, f32: 2 ** -149 } as const;
/** Spacing of a type over its value, twice: CPU and GPU may round from f64 through f32. */
const SPACING = { bf16: 2 ** -7, f16: 2 ** -10, f32: 2 ** -22 } as const;

function evaluate(
  d: Device, [x, target, delta]: Float64Array[], N: number, dtype: DType,
): { loss: Float64Array; dot: Float64Array; bar: Float64Array } {
  using _scope = d.scope();
  const [X, T, D, dots] = [x, target, delta, x.map((_, i) => (i % 7) - 3)].map((v) => d.fromValues(v, [B, N], dtype));
  const [weight, bars] = [[1, 0, 0.5], [1, 1, 1]].map((v) => d.fromValues(v, [B], "f64"));
  const [loss, again, dot] = [0, 1, 2].map(() => d.empty([B], "f64"));
  const bar = d.empty([B, N], dtype);
  d.lib.sqLossFwd({ x: X.ptr, target: T.ptr, delta: D.ptr, weight: weight.ptr, loss: loss.ptr, B, N, dtype: X.code });
  d.lib.sqLossJvp({
    x: X.ptr, target: T.ptr, delta: D.ptr, weight: weight.ptr, xDot: dots.ptr, loss: again.ptr, lossDot: dot.ptr, B,
    N, dtype: X.code,
  });
  d.lib.sqLossVjp({
    x: X.ptr, target: T.ptr, delta: D.ptr, weight: weight.ptr, lossBar: bars.ptr, xBar: bar.ptr, B, N, dtype: X.code,
  });
  expect([...again.values()]).toEqual([...loss.values()]);
  return { loss: loss.values(), dot: dot.values(), bar: bar.values() };
}

describe("gpu: sq_loss of odd values", () => {
  for (const dtype of ["bf16", "f16", "f32"] as const) {
    for (const N of [4096, 4101]) {
      for (const odd of [SMALLEST[dtype], Infinity, -Infinity, NaN]) {
        test(`${dtype}, ${N} elements, ${odd}`, () => {
          for (const place of [0, 1, 2]) {
            const rng = new Rng(5, place);
            const inputs = [0, 1, 2].map(() => Float64Array.from({ length: B * N }, () => rng.normal()));
            // The middle sample weighs nothing; the last one stays as it is, but for values next to nothing.
            for (const b of [0, 1]) inputs[place][b * N + 1000 + place] = odd;
            for (const v of inputs) for (let i = 0; i < 64; i++) v[2 * N + 100 + i] = (i - 32) * SMALLEST[dtype];
            const [got, want] = [evaluate(device(), inputs, N, dtype), evaluate(cpu(), inputs, N, dtype)];
            expect([got.loss[1], got.dot[1], got.bar.subarray(N, 2 * N).some((v) => v !== 0)]).toEqual([0, 0, false]);
            for (const [a, b, bound] of [
              [got.loss, want.loss, 1e-12], [got.dot, want.dot, 1e-9], [got.bar, want.bar, SPACING[dtype]],
            ] as const) {
              const off = [...a.keys()].filter(
                (i) => !(Object.is(a[i], b[i]) || Math.abs(a[i] - b[i]) <= bound * Math.abs(b[i])),
              );
              expect(off.slice(0, 4).map((i) => [i, a[i], b[i]])).toEqual([]);
            }
            if (!Number.isFinite(odd)) expect(Number.isFinite(got.loss[0])).toBe(false);
          }
        });
      }
    }
  }
});
