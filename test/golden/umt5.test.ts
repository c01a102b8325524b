import { describe, expect, test } from "bun:test";
import { hostValues, type DType } from "../../core/dtype.ts";
import { relativeBucket, relativeBuckets, umt5ConfigOf, type Umt5Config } from "../../core/models/umt5/config.ts";
import { Umt5Encoder } from "../../core/models/umt5/model.ts";
import { relativeBias } from "../../core/ops/nondiff/text.ts";
import { statDType, type Device } from "../../core/tensor.ts";
import { onEachDevice } from "../harness/device.ts";
import { golden, relativeError, statedBf16Error } from "../harness/golden.ts";
import { umt5 } from "../harness/reference/networks/umt5.ts";
import { plainOf } from "../harness/reference/plain.ts";

/** The umT5 encoder of Wan2.1 against the public reference. */

const g = golden("umt5.safetensors");
const values = (name: string): Float64Array => hostValues(g.get(name));
const weights = g.under("params.");

const config = ((): Umt5Config => {
  const c = JSON.parse(g.metadata.config);
  const sizes = { vocab: c.vocab, dim: c.dim, dimAttn: c.dim_attn, ffnDim: c.dim_ffn, heads: c.num_heads };
  return { ...sizes, layers: c.num_layers, buckets: c.num_buckets, maxDistance: c.max_dist, eps: 1e-6 };
})();

const [B, L] = g.get("ids").shape;
const lengths = Array.from({ length: B }, (_, b) =>
  values("mask")
    .subarray(b * L, (b + 1) * L)
    .reduce((n, v) => n + v, 0),
);

function encode(device: Device, dtype: DType, masked: boolean): Float64Array {
  using _scope = device.scope();
  using encoder = Umt5Encoder.create(device, config, { dtype });
  encoder.params.load(weights, "golden");
  return encoder
    .forward(device.fromHost(g.get("ids")), masked ? device.fromValues(lengths, [B], "i32") : null)
    .values();
}

/** Error of plain loops that round where the encoder stores. */
function plainError(dtype: DType): number {
  const y = umt5({ config, weights, ids: plainOf(g.get("ids")), lengths, dtype, residual: statDType(dtype) });
  return relativeError(y.v, values("y"));
}

describe("umT5 on the host", () => {
  test("the configuration is read off the shapes", () => {
    const shapes = new Map([...weights].map(([name, t]) => [name, t.shape]));
    // No shape tells the largest distance.
    const { maxDistance } = umt5ConfigOf(shapes, "golden");
    expect(umt5ConfigOf(shapes, "golden")).toEqual({ ...config, maxDistance });
  });

  test("relative buckets, exactly", () => {
    expect(Array.from(values("rel_pos"), (d) => relativeBucket(d, config))).toEqual([...values("rel_bucket")]);
  });

  test("plain loops in f64 give the vectors too", () => expect(plainError("f64")).toBeLessThan(3e-7));
});

onEachDevice((device, test) => {
  describe("umT5 against the public reference", () => {
    test("position bias of the first block", () => {
      using _scope = device().scope();
      const [, heads, queries, keys] = g.get("pos_bias_block0").shape;
      const table = device().fromHost(g.get("params.blocks.0.pos_embedding.embedding.weight"));
      const buckets = relativeBuckets(queries, config);
      const bias = relativeBias(table, device().fromValues(buckets, [buckets.length], "i32"), "f32").values();
      const whole = Float64Array.from({ length: heads * queries * keys }, (_, n) => {
        const [h, i, j] = [Math.floor(n / (queries * keys)), Math.floor(n / keys) % queries, n % keys];
        return bias[h * buckets.length + j - i + queries - 1];
      });
      expect([...whole]).toEqual([...values("pos_bias_block0")]);
    });

    // f32: the tolerance of the vectors; f64: what storing them in f32 leaves.
    for (const [dtype, tolerance] of [["f32", 2e-5], ["f64", 3e-7]] as const) {
      test(`values, ${dtype}`, () => {
        const y = encode(device(), dtype, true);
        expect(relativeError(y, values("y"))).toBeLessThan(tolerance);
        expect(relativeError(encode(device(), dtype, false), values("y_no_mask"))).toBeLessThan(tolerance);
        const D = config.dim;
        const padded = y.map((v, i) => (Math.floor(i / D) % L < lengths[Math.floor(i / (L * D))] ? v : 0));
        expect(relativeError(padded, values("y_zero_padded"))).toBeLessThan(tolerance);
      });
    }

    for (const dtype of ["bf16", "f16"] as const) {
      test(`values, ${dtype}: at most twice the error of a plain run`, () => {
        const stated = dtype === "bf16" ? statedBf16Error(g, "all bf16", "all positions", "max") : null;
        expect(relativeError(encode(device(), dtype, true), values("y"))).toBeLessThan(
          2 * (stated ?? plainError(dtype)),
        );
      });
    }
  });
});
