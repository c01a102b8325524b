import { describe, expect } from "bun:test";
import type { DType } from "../../../core/dtype.ts";
import { pushFrames } from "../../../core/video/frames.ts";
import { onEachDevice } from "../../harness/device.ts";

onEachDevice((device, test) => {
  describe("frames as bytes", () => {
    for (const dtype of ["f32", "f64", "bf16", "f16"] as DType[]) {
      test(`${dtype}: rounded to the nearest level, limited, interleaved, a sink a sample`, () => {
        const d = device();
        using _scope = d.scope();
        const [B, t, Y, X] = [2, 3, 5, 7];
        const n = B * 3 * t * Y * X;
        const levels = Float64Array.from({ length: n }, (_, i) => Math.sin(i * 12.9898) * 1.3);
        const x = d.fromValues(levels, [B, 3, t, Y, X], dtype);
        const v = x.values();
        const got: Uint8Array[][] = [[], []];
        pushFrames(x, got.map((frames) => ({ frame: (p: Uint8Array) => void frames.push(p.slice()) })));
        let limited = 0;
        for (let b = 0; b < B; b++) {
          expect(got[b].length).toBe(t);
          for (let i = 0; i < t; i++) {
            for (let p = 0; p < Y * X; p++) {
              for (let c = 0; c < 3; c++) {
                const level = (v[((b * 3 + c) * t + i) * Y * X + p] + 1) * 127.5;
                const clamped = Math.min(255, Math.max(0, level));
                if (clamped !== level) limited++;
                expect(Math.abs(got[b][i][p * 3 + c] - clamped)).toBeLessThanOrEqual(0.5);
              }
            }
          }
        }
        expect(limited).toBeGreaterThan(20);
      });
    }
    test("NaN is black, infinities are black and white", () => {
      const d = device();
      using _scope = d.scope();
      const got: number[] = [];
      const odd = d.fromValues([NaN, -Infinity, Infinity], [1, 3, 1, 1, 1], "f32");
      pushFrames(odd, [{ frame: (p) => void got.push(...p) }]);
      expect(got).toEqual([0, 0, 255]);
    });
  });
});
