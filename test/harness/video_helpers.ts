import { describe, expect } from "bun:test";
import type { DType } from "../../core/dtype.ts";
import { affine, channelNorm, fromChannelsLast, softmaxRows, toChannelsLast } from "../../core/ops/nondiff/video.ts";
import type { Device } from "../../core/tensor.ts";
import type { TestFunction } from "./device.ts";
import { relativeError } from "./golden.ts";

const LIMIT: Partial<Record<DType, number>> = { f64: 1e-12, f32: 2e-6, f16: 2e-3, bf16: 1e-2 };

/** Norm over channels, layouts and softmax against loops over the same rounded inputs. */
export function videoHelperTests(device: () => Device, test: TestFunction, dtypes: readonly DType[]): void {
  describe("around the convolutions", () => {
    for (const dtype of dtypes) {
      const limit = LIMIT[dtype] as number;
      const stat = dtype === "f64" ? "f64" : "f32";
      for (const C of [5, 48, 96, 192, 384, 768]) {
        for (const silu of [false, true]) {
          test(`norm of ${C} channels${silu ? " and SiLU" : ""}: ${dtype}`, () => {
            using _scope = device().scope();
            const M = 77;
            const x = device().randn([M, C], dtype, 1, 2);
            x.window(3 * C, [C]).zero();
            const g = device().randn([C, 1, 1, 1], dtype, 1, 3);
            const [v, gamma] = [x.values(), g.values()];
            const lengths = Array.from({ length: M }, (_, m) => Math.sqrt(v.subarray(m * C, (m + 1) * C).reduce((n, a) => n + a * a, 0)));
            const want = v.map((e, i) => {
              const u = (e / Math.max(lengths[Math.floor(i / C)], 1e-12)) * Math.sqrt(C) * gamma[i % C];
              return silu ? u / (1 + Math.exp(-u)) : u;
            });
            expect(relativeError(channelNorm(x, g, silu).values(), want)).toBeLessThan(limit);
            expect(relativeError(channelNorm(x, g, silu, x).values(), want)).toBeLessThan(limit);
          });
        }
      }
      test(`a window to channels last and back: ${dtype}`, () => {
        using _scope = device().scope();
        const [C, T, Y, X] = [3, 4, 5, 6];
        const x = device().randn([C, T, Y, X], stat, 1, 4);
        const v = x.values();
        const map = affine(device(), [2, 0.5, -1], [0.25, 0, 1]);
        for (const channels of [3, 8]) {
          const y = toChannelsLast(x, { at: [1, 2, 1], size: [2, 3, 4] }, channels, dtype, map);
          expect(y.shape).toEqual([2, 3, 4, channels]);
          const want = Float64Array.from({ length: y.numel }, (_, i) => {
            const [c, j, row, t] = [i % channels, Math.floor(i / channels) % 4, Math.floor(i / channels / 4) % 3, Math.floor(i / channels / 12)];
            return c < C ? v[((c * T + 1 + t) * Y + 2 + row) * X + 1 + j] * [2, 0.5, -1][c] + [0.25, 0, 1][c] : 0;
          });
          expect(relativeError(y.values(), want)).toBeLessThan(limit);
          const back = device().zeros([C, 5, 3, 4], stat);
          fromChannelsLast(y, back, 3, affine(device(), [0.5, 2, -1], [-0.125, 0, 1]));
          const got = back.values();
          const wanted = got.map((_, i) => {
            const [t, row, j, c] = [Math.floor(i / 12) % 5, Math.floor(i / 4) % 3, i % 4, Math.floor(i / 60)];
            return t >= 3 ? v[((c * T + t - 2) * Y + 2 + row) * X + 1 + j] : 0;
          });
          expect(relativeError(got, wanted)).toBeLessThan(limit);
        }
      });
      test(`softmax of rows: ${dtype}`, () => {
        using _scope = device().scope();
        for (const N of [1, 7, 300, 1000]) {
          const x = device().randn([9, N], stat, 1, 6);
          const v = x.values();
          const want = new Float64Array(9 * N);
          for (let m = 0; m < 9; m++) {
            const row = v.subarray(m * N, (m + 1) * N).map((e) => Math.exp(3 * e));
            const sum = row.reduce((a, b) => a + b, 0);
            row.forEach((e, i) => (want[m * N + i] = e / sum));
          }
          expect(relativeError(softmaxRows(x, 3, dtype).values(), want)).toBeLessThan(limit);
        }
      });
    }
  });
}
