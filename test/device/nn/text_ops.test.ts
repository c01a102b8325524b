import { describe, expect } from "bun:test";
import { hostTensor, numel, type DType } from "../../../core/dtype.ts";
import { RcmError } from "../../../core/error.ts";
import { biasAttention, embedding, geluGate, relativeBias } from "../../../core/ops/nondiff/text.ts";
import { Rng } from "../../../core/rng.ts";
import { statDType, type Device, type Tensor } from "../../../core/tensor.ts";
import { boundOf } from "../../harness/bounds.ts";
import { onEachDevice } from "../../harness/device.ts";
import { relativeError } from "../../harness/golden.ts";
import { biasAttention as plainAttention } from "../../harness/reference/bias_attention.ts";
import { geluGate as plainGate } from "../../harness/reference/gelu_gate.ts";
import { plain, storedAs, type Plain } from "../../harness/reference/plain.ts";

/** Ops of the text encoder against plain loops in f64. */

const DTYPES = ["f32", "bf16", "f16", "f64"] as const;
const SUMS = { f64: 1e-13, f32: 3e-6 };

/** Normal values as a tensor of `dtype`, and the same values after the rounding. */
function draw(device: Device, rng: Rng, shape: number[], dtype: DType): { t: Tensor; p: Plain } {
  const t = device.fromHost(
    hostTensor(
      dtype,
      shape,
      Float64Array.from({ length: numel(shape) }, () => rng.normal()),
    ),
  );
  return { t, p: plain(shape, t.values()) };
}

const ATTENTION_CASES = [
  { B: 2, H: 3, L: 12, K: 8, lengths: [7, 12] },
  { B: 1, H: 2, L: 97, K: 64, lengths: [97] },
  { B: 3, H: 1, L: 70, K: 40, lengths: [1, 0, 33] },
  { B: 1, H: 1, L: 33, K: 128, lengths: [32] },
  { B: 1, H: 2, L: 1, K: 16, lengths: [1] },
];

function code(body: () => unknown): string {
  try {
    body();
  } catch (error) {
    return error instanceof RcmError ? error.code : String(error);
  }
  return "none";
}

onEachDevice((device, test) => {
  describe("embedding and relative bias", () => {
    for (const dtype of DTYPES) {
      test(`embedding: rows as they are, ${dtype}`, () => {
        using _scope = device().scope();
        const { t, p } = draw(device(), new Rng(1, 0), [11, 37], dtype);
        const ids = [3, 0, 10, 3, 7, 9];
        const y = embedding(t, device().fromValues(ids, [2, 3], "i32"), dtype);
        expect(y.shape).toEqual([2, 3, 37]);
        const row = (n: number): number => ids[Math.floor(n / 37)];
        expect(y.values()).toEqual(Float64Array.from({ length: 6 * 37 }, (_, n) => p.v[row(n) * 37 + (n % 37)]));
      });

      for (const out of DTYPES) {
        test(`both convert, ${dtype} to ${out}`, () => {
          using _scope = device().scope();
          const { t, p } = draw(device(), new Rng(2, 0), [5, 6], dtype);
          const rows = [4, 0, 2, 2];
          const ids = device().fromValues(rows, [4], "i32");
          const want = (n: number[]): Float64Array => device().fromValues(n, [n.length], out).values();
          expect(embedding(t, ids, out).values()).toEqual(
            want(rows.flatMap((r) => [...p.v.subarray(6 * r, 6 * r + 6)])),
          );
          const bias = relativeBias(t, ids, out);
          expect(bias.shape).toEqual([6, 4]);
          const transposed = Array.from({ length: 24 }, (_, n) => p.v[rows[n % 4] * 6 + Math.floor(n / 4)]);
          expect(bias.values()).toEqual(want(transposed));
        });
      }
    }
  });

  describe("gelu_gate", () => {
    for (const dtype of DTYPES) {
      test(`${dtype} follows f64`, () => {
        using _scope = device().scope();
        for (const n of [1, 7, 4099]) {
          const [x, g] = [draw(device(), new Rng(3, n), [n], dtype), draw(device(), new Rng(4, n), [n], dtype)];
          const want = plainGate(x.p, g.p);
          const error = (out: DType): number => relativeError(geluGate(x.t, g.t, out).values(), want.v);
          expect(error(dtype)).toBeLessThan(boundOf(dtype, SUMS, want));
          if (dtype === "f16") expect(error("f32")).toBeLessThan(boundOf("f32", SUMS, want));
        }
      });
    }
  });

  describe("bias_attention", () => {
    for (const dtype of DTYPES) {
      for (const { B, H, L, K, lengths } of ATTENTION_CASES) {
        test(`B=${B} H=${H} L=${L} K=${K} lengths ${lengths}, ${dtype} follows f64`, () => {
          using _scope = device().scope();
          const rng = new Rng(5, L);
          const qkv = [0, 1, 2].map(() => draw(device(), rng, [B, L, H * K], dtype));
          const bias = draw(device(), rng, [H, 2 * L - 1], statDType(dtype));
          const scale = 1 / Math.sqrt(K);
          for (const keys of [lengths, null]) {
            const run = (stored?: (p: Plain) => Plain): Plain =>
              plainAttention(
                qkv.map((one) => one.p),
                bias.p,
                { heads: H, scale, lengths: keys, stored },
              );
            const counts = keys && device().fromValues(keys, [B], "i32");
            const [q, k, v] = qkv.map((one) => one.t);
            const y = biasAttention({ q, k, v }, bias.t, counts, scale).values();
            const plainRun = storedAs(
              dtype,
              run((p) => storedAs(dtype, p)),
            );
            expect(relativeError(y, run().v)).toBeLessThan(boundOf(dtype, SUMS, run(), plainRun));
          }
        });
      }
    }

    test("keys past the length have no influence, not even NaN", () => {
      using _scope = device().scope();
      const [B, H, L, K] = [1, 2, 40, 16];
      const rng = new Rng(6, 0);
      const values = [0, 1, 2].map(() => Float64Array.from({ length: L * H * K }, () => rng.normal()));
      const bias = draw(device(), rng, [H, 2 * L - 1], "f32").t;
      const run = (fill: number, length: number): Float64Array => {
        const [q, k, v] = values.map((x, n) => {
          const filled = n === 0 ? x : x.map((e, i) => (i >= 21 * H * K ? fill : e));
          return device().fromValues(filled, [B, L, H * K], "f32");
        });
        return biasAttention({ q, k, v }, bias, device().fromValues([length], [B], "i32"), 1).values();
      };
      expect(run(Number.NaN, 21)).toEqual(run(0, 21));
      expect(run(Number.NaN, 22).some(Number.isNaN)).toBe(true);
    });

    test("no elements, no work", () => {
      using _scope = device().scope();
      const none = device().empty([0, 4, 8], "f32");
      expect(biasAttention({ q: none, k: none, v: none }, device().zeros([2, 7], "f32"), null, 1).shape).toEqual([
        0, 4, 8,
      ]);
    });
  });

  test("wrong arguments of text ops are named", () => {
    using _scope = device().scope();
    const d = device();
    const q = d.zeros([1, 4, 8], "bf16");
    expect(code(() => biasAttention({ q: q, k: q, v: q }, d.zeros([2, 8], "f32"), null, 1))).toBe("E_SHAPE");
    expect(code(() => biasAttention({ q: q, k: q, v: q }, d.zeros([2, 7], "bf16"), null, 1))).toBe("E_DTYPE");
    expect(code(() => biasAttention({ q: q, k: q, v: q }, d.zeros([3, 7], "f32"), null, 1))).toBe("E_SHAPE");
    const wide = d.zeros([1, 2, 129], "f32");
    expect(code(() => biasAttention({ q: wide, k: wide, v: wide }, d.zeros([1, 3], "f32"), null, 1))).toBe("E_SHAPE");
    expect(code(() => geluGate(q, d.zeros([1, 4, 8], "f32"), "f32"))).toBe("E_DTYPE");
    expect(code(() => geluGate(q, q, "f64"))).toBe("E_DTYPE");
    expect(code(() => embedding(q.view([4, 8]), d.zeros([2], "f32"), "f32"))).toBe("E_DTYPE");
  });
});
