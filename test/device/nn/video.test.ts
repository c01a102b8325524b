import { describe, expect } from "bun:test";
import { affine, channelNorm, fromChannelsLast, softmaxRows, toChannelsLast } from "../../../core/ops/nondiff/video.ts";
import { statDType, type Tensor } from "../../../core/tensor.ts";
import { boundOf } from "../../harness/bounds.ts";
import { onEachDevice } from "../../harness/device.ts";
import { relativeError } from "../../harness/golden.ts";
import { channelNorm as plainNorm } from "../../harness/reference/channel_norm.ts";
import { plainOf, type Plain } from "../../harness/reference/plain.ts";
import { softmaxRows as plainSoftmax } from "../../harness/reference/softmax_rows.ts";
import { checkConv, CONV_CASES } from "../../harness/video_cases.ts";

/** Convolutions over video, and norms, layouts and softmax around them, against plain loops over the same inputs. */

const DTYPES = ["f64", "f32", "bf16", "f16"] as const;
const SUMS = { f64: 1e-12, f32: 2e-6 };
const given = (t: Tensor): Plain => plainOf(t.toHost());

onEachDevice((device, test) => {
  describe("conv3d", () => {
    for (const c of CONV_CASES) {
      for (const dtype of DTYPES) test(`${c.name}: ${dtype}`, () => checkConv(device(), c, dtype), 120_000);
    }
  });

  describe("channel norm", () => {
    for (const dtype of DTYPES) {
      for (const C of [5, 48, 96, 192, 384, 768]) {
        for (const silu of [false, true]) {
          test(`${C} channels${silu ? " and SiLU" : ""}: ${dtype}`, () => {
            using _scope = device().scope();
            const x = device().randn([77, C], dtype, 1, 2);
            x.window(3 * C, [C]).zero();
            const gamma = device().randn([C, 1, 1, 1], dtype, 1, 3);
            const want = plainNorm(given(x), given(gamma), silu);
            const bound = boundOf(dtype, SUMS, want);
            expect(relativeError(channelNorm(x, gamma, silu).values(), want.v)).toBeLessThan(bound);
            expect(relativeError(channelNorm(x, gamma, silu, x).values(), want.v)).toBeLessThan(bound);
          });
        }
      }
    }
  });

  describe("layouts", () => {
    const [C, T, Y, X] = [3, 4, 5, 6];
    const [factor, offset] = [[2, 0.5, -1], [0.25, 0, 1]];
    for (const dtype of DTYPES) {
      for (const channels of [3, 8]) {
        test(`a window to ${channels} channels last and back: ${dtype}`, () => {
          using _scope = device().scope();
          const x = device().randn([C, T, Y, X], statDType(dtype), 1, 4);
          const v = x.values();
          const window = { at: [1, 2, 1], size: [2, 3, 4] } as const;
          const y = toChannelsLast(x, window, channels, { dtype, map: affine(device(), factor, offset) });
          expect(y.shape).toEqual([2, 3, 4, channels]);
          const want = Float64Array.from({ length: y.numel }, (_, i) => {
            const [c, column] = [i % channels, Math.floor(i / channels) % 4];
            const [row, t] = [Math.floor(i / channels / 4) % 3, Math.floor(i / channels / 12)];
            return c < C ? v[((c * T + 1 + t) * Y + 2 + row) * X + 1 + column] * factor[c] + offset[c] : 0;
          });
          const last = { v: want, shape: y.shape };
          expect(relativeError(y.values(), want)).toBeLessThan(boundOf(dtype, SUMS, last));

          const back = device().zeros([C, 5, 3, 4], statDType(dtype));
          const undo = affine(device(), factor.map((f) => 1 / f), offset.map((o, c) => -o / factor[c]));
          fromChannelsLast(y, back, 3, undo);
          const stored = y.values();
          const wanted = back.values().map((_, i) => {
            const [c, t, place] = [Math.floor(i / 60), Math.floor(i / 12) % 5, i % 12];
            return t < 3 ? 0 : (stored[((t - 3) * 12 + place) * channels + c] - offset[c]) / factor[c];
          });
          // From what y holds on, the way back is in the type of the statistics.
          expect(relativeError(back.values(), wanted)).toBeLessThan(SUMS[dtype === "f64" ? "f64" : "f32"]);
        });
      }
    }
  });

  describe("softmax of rows", () => {
    for (const dtype of DTYPES) {
      for (const N of [1, 7, 300, 1000]) {
        test(`${N} columns: ${dtype}`, () => {
          using _scope = device().scope();
          const x = device().randn([9, N], statDType(dtype), 1, 6);
          const want = plainSoftmax(given(x), 3);
          expect(relativeError(softmaxRows(x, 3, dtype).values(), want.v)).toBeLessThan(boundOf(dtype, SUMS, want));
        });
      }
    }
  });
});
