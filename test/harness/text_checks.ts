import { describe, expect } from "bun:test";
import { hostTensor, numel, type DType } from "../../core/dtype.ts";
import { RcmError } from "../../core/error.ts";
import { UMT5_PRESETS } from "../../core/models/umt5/config.ts";
import { Umt5Encoder } from "../../core/models/umt5/model.ts";
import { biasAttention, embedding, geluGate, relativeBias } from "../../core/ops/nondiff/text.ts";
import { Rng } from "../../core/rng.ts";
import { statDType, type Device, type Tensor } from "../../core/tensor.ts";
import { TOLERANCE } from "./check_op.ts";
import type { TestFunction } from "./device.ts";
import { relativeError } from "./golden.ts";

const DTYPES = ["f32", "bf16", "f16", "f64"] as const;
const bound = (dtype: DType): number => (dtype === "f64" ? 1e-13 : TOLERANCE[dtype as "f32" | "bf16" | "f16"].value);

/** Normal values as a tensor of `dtype`, and the same values after the rounding. */
function draw(device: Device, rng: Rng, shape: number[], dtype: DType): { t: Tensor; v: Float64Array } {
  const t = device.fromHost(hostTensor(dtype, shape, Float64Array.from({ length: numel(shape) }, () => rng.normal())));
  return { t, v: t.values() };
}

const gelu = (x: number): number => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

/** softmax(scale q k^T + bias) v by plain loops in f64. */
function naiveAttention(q: Float64Array, k: Float64Array, v: Float64Array, bias: Float64Array, lengths: number[], B: number, H: number, L: number, K: number, scale: number): Float64Array {
  const out = new Float64Array(q.length);
  for (let b = 0; b < B; b++)
    for (let h = 0; h < H; h++)
      for (let i = 0; i < L; i++) {
        const at = (l: number): number => ((b * L + l) * H + h) * K;
        const scores = Array.from({ length: lengths[b] }, (_, j) => {
          let s = 0;
          for (let c = 0; c < K; c++) s += q[at(i) + c] * k[at(j) + c];
          return scale * s + bias[h * (2 * L - 1) + j - i + L - 1];
        });
        const top = Math.max(...scores);
        const weights = scores.map((s) => Math.exp(s - top));
        const sum = weights.reduce((a, w) => a + w, 0);
        weights.forEach((w, j) => {
          for (let c = 0; c < K; c++) out[at(i) + c] += (w / sum) * v[at(j) + c];
        });
      }
  return out;
}

/** Ops of the text encoder against plain loops in f64, on a device. */
export function textOpChecks(device: () => Device, test: TestFunction): void {
  describe("ops of the text encoder", () => {
    for (const dtype of DTYPES) {
      test(`embedding: rows as they are, ${dtype}`, () => {
        using _scope = device().scope();
        const { t, v } = draw(device(), new Rng(1, 0), [11, 37], dtype);
        const ids = [3, 0, 10, 3, 7, 9];
        const y = embedding(t, device().fromValues(ids, [2, 3], "i32"), dtype);
        expect(y.shape).toEqual([2, 3, 37]);
        expect(y.values()).toEqual(Float64Array.from({ length: 6 * 37 }, (_, n) => v[ids[Math.floor(n / 37)] * 37 + (n % 37)]));
      });
      for (const out of DTYPES) {
        test(`embedding and relative bias convert, ${dtype} to ${out}`, () => {
          using _scope = device().scope();
          const { t, v } = draw(device(), new Rng(2, 0), [5, 6], dtype);
          const ids = device().fromValues([4, 0, 2, 2], [4], "i32");
          const want = (n: number[]): Float64Array => device().fromValues(n, [n.length], out).values();
          expect(embedding(t, ids, out).values()).toEqual(want([4, 0, 2, 2].flatMap((r) => [...v.subarray(6 * r, 6 * r + 6)])));
          const bias = relativeBias(t, ids, out);
          expect(bias.shape).toEqual([6, 4]);
          expect(bias.values()).toEqual(want(Array.from({ length: 24 }, (_, n) => v[[4, 0, 2, 2][n % 4] * 6 + Math.floor(n / 4)])));
        });
      }
      test(`gelu_gate: ${dtype} follows f64`, () => {
        using _scope = device().scope();
        for (const n of [1, 7, 4099]) {
          const [x, g] = [draw(device(), new Rng(3, n), [n], dtype), draw(device(), new Rng(4, n), [n], dtype)];
          const want = x.v.map((v, i) => v * gelu(g.v[i]));
          expect(relativeError(geluGate(x.t, g.t, dtype).values(), want)).toBeLessThan(bound(dtype));
          if (dtype === "f16") expect(relativeError(geluGate(x.t, g.t, "f32").values(), want)).toBeLessThan(bound("f32"));
        }
      });
      for (const [B, H, L, K, lengths] of [[2, 3, 12, 8, [7, 12]], [1, 2, 97, 64, [97]], [3, 1, 70, 40, [1, 0, 33]], [1, 1, 33, 128, [32]], [1, 2, 1, 16, [1]]] as const) {
        test(`bias_attention: B=${B} H=${H} L=${L} K=${K} lengths ${lengths}, ${dtype} follows f64`, () => {
          using _scope = device().scope();
          const rng = new Rng(5, L);
          const [q, k, v] = [0, 1, 2].map(() => draw(device(), rng, [B, L, H * K], dtype));
          const bias = draw(device(), rng, [H, 2 * L - 1], statDType(dtype));
          const scale = 1 / Math.sqrt(K);
          const want = naiveAttention(q.v, k.v, v.v, bias.v, [...lengths], B, H, L, K, scale);
          const y = biasAttention(q.t, k.t, v.t, bias.t, device().fromValues(lengths, [B], "i32"), scale).values();
          expect(relativeError(y, want)).toBeLessThan(bound(dtype));
          const all = biasAttention(q.t, k.t, v.t, bias.t, null, scale).values();
          expect(relativeError(all, naiveAttention(q.v, k.v, v.v, bias.v, lengths.map(() => L), B, H, L, K, scale))).toBeLessThan(bound(dtype));
        });
      }
    }

    test("bias_attention: what stands past the length has no influence, not even NaN", () => {
      using _scope = device().scope();
      const [B, H, L, K] = [1, 2, 40, 16];
      const rng = new Rng(6, 0);
      const values = [0, 1, 2].map(() => Float64Array.from({ length: L * H * K }, () => rng.normal()));
      const bias = draw(device(), rng, [H, 2 * L - 1], "f32").t;
      const run = (fill: number, length: number): Float64Array => {
        const [q, k, v] = values.map((x, n) => device().fromValues(n === 0 ? x : x.map((e, i) => (i >= 21 * H * K ? fill : e)), [B, L, H * K], "f32"));
        return biasAttention(q, k, v, bias, device().fromValues([length], [B], "i32"), 1).values();
      };
      expect(run(Number.NaN, 21)).toEqual(run(0, 21));
      expect(run(Number.NaN, 22).some(Number.isNaN)).toBe(true);
    });

    test("no elements, no work; wrong arguments are named", () => {
      using _scope = device().scope();
      const d = device();
      expect(biasAttention(d.empty([0, 4, 8], "f32"), d.empty([0, 4, 8], "f32"), d.empty([0, 4, 8], "f32"), d.zeros([2, 7], "f32"), null, 1).shape).toEqual([0, 4, 8]);
      const code = (body: () => unknown): string => {
        try {
          body();
        } catch (error) {
          return error instanceof RcmError ? error.code : String(error);
        }
        return "none";
      };
      const q = d.zeros([1, 4, 8], "bf16");
      expect(code(() => biasAttention(q, q, q, d.zeros([2, 8], "f32"), null, 1))).toBe("E_SHAPE");
      expect(code(() => biasAttention(q, q, q, d.zeros([2, 7], "bf16"), null, 1))).toBe("E_DTYPE");
      expect(code(() => biasAttention(q, q, q, d.zeros([3, 7], "f32"), null, 1))).toBe("E_SHAPE");
      const wide = d.zeros([1, 2, 129], "f32");
      expect(code(() => biasAttention(wide, wide, wide, d.zeros([1, 3], "f32"), null, 1))).toBe("E_SHAPE");
      expect(code(() => geluGate(q, d.zeros([1, 4, 8], "f32"), "f32"))).toBe("E_DTYPE");
      expect(code(() => geluGate(q, q, "f64"))).toBe("E_DTYPE");
      expect(code(() => embedding(q.view([4, 8]), d.zeros([2], "f32"), "f32"))).toBe("E_DTYPE");
    });
  });

  describe("umT5 residual stream", () => {
    const config = { ...UMT5_PRESETS["umt5-tiny"], dim: 64, dimAttn: 64, ffnDim: 96, layers: 24 };
    const ids = Array.from({ length: 40 }, (_, i) => (37 * i + 5) % config.vocab);
    /** 24 random layers with weights that bf16 holds exactly. */
    const run = (dtype: DType, residual: DType | undefined): Float64Array => {
      using _scope = device().scope();
      using encoder = Umt5Encoder.create(device(), config, { dtype, residual });
      using drawn = Umt5Encoder.create(device(), config, { dtype: "bf16" });
      drawn.params.init(7);
      for (const name of encoder.params.names) encoder.params.tensor(name).set(drawn.params.tensor(name));
      return encoder.forward(device().fromValues(ids, [1, ids.length], "i32"), null).values();
    };
    const rms = (a: Float64Array, b: Float64Array): number => Math.sqrt(a.reduce((s, v, i) => s + (v - b[i]) ** 2, 0) / b.reduce((s, v) => s + v * v, 0));

    test("an f32 sum beside bf16 weights is nearer to f64 than the public code's bf16 sum", () => {
      const want = run("f64", undefined);
      const [wide, narrow] = [rms(run("bf16", undefined), want), rms(run("bf16", "bf16"), want)];
      expect(wide).toBeLessThan(0.03);
      expect(narrow).toBeGreaterThan(1.2 * wide);
    }, 60_000);
  });
}
