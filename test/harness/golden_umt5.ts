import { describe, expect } from "bun:test";
import { hostValues, type DType } from "../../core/dtype.ts";
import { relativeBucket, relativeBuckets, umt5ConfigOf, type Umt5Config } from "../../core/models/umt5/config.ts";
import { Umt5Encoder } from "../../core/models/umt5/model.ts";
import { relativeBias } from "../../core/ops/nondiff/text.ts";
import type { Device } from "../../core/tensor.ts";
import type { TestFunction } from "./device.ts";
import { golden, relativeError } from "./golden.ts";

const g = golden("umt5.safetensors");

export function goldenUmt5Config(): Umt5Config {
  const c = JSON.parse(g.metadata.config);
  return { vocab: c.vocab, dim: c.dim, dimAttn: c.dim_attn, ffnDim: c.dim_ffn, heads: c.num_heads, layers: c.num_layers, buckets: c.num_buckets, maxDistance: c.max_dist, eps: 1e-6 };
}

export const lengthsOf = (): number[] => {
  const { shape } = g.get("mask");
  const mask = hostValues(g.get("mask"));
  return Array.from({ length: shape[0] }, (_, b) => mask.subarray(b * shape[1], (b + 1) * shape[1]).reduce((n, v) => n + v, 0));
};

/** The encoder with the golden weights, and what it makes of the golden ids. Shapes: [B, L, D]. */
export function runGoldenUmt5(device: Device, o: { dtype: DType; residual?: DType; masked: boolean }): Float64Array {
  using _scope = device.scope();
  using encoder = Umt5Encoder.create(device, goldenUmt5Config(), o);
  encoder.params.load(g.under("params."), "golden");
  const lengths = o.masked ? device.fromValues(lengthsOf(), [2], "i32") : null;
  return encoder.forward(device.fromHost(g.get("ids")), lengths).values();
}

/** Values of the umT5 encoder, its buckets and its bias against the golden vectors, on a device. */
export function goldenUmt5(device: () => Device, test: TestFunction): void {
  describe("umT5 against the public reference", () => {
    test("the configuration is read off the shapes", () => {
      const shapes = new Map([...g.under("params.")].map(([name, t]) => [name, t.shape]));
      expect(umt5ConfigOf(shapes, "golden")).toEqual(goldenUmt5Config());
    });

    test("relative buckets, exactly", () => {
      const [want, at] = [hostValues(g.get("rel_bucket")), hostValues(g.get("rel_pos"))];
      expect(Array.from(at, (d) => relativeBucket(d, goldenUmt5Config()))).toEqual([...want]);
    });

    test("position bias of the first block", () => {
      using _scope = device().scope();
      const c = goldenUmt5Config();
      const L = g.get("ids").shape[1];
      const table = device().fromHost(g.get("params.blocks.0.pos_embedding.embedding.weight"));
      const bias = relativeBias(table, device().fromValues(relativeBuckets(L, c), [2 * L - 1], "i32"), "f32").values();
      const want = hostValues(g.get("pos_bias_block0"));
      const whole = Float64Array.from({ length: c.heads * L * L }, (_, n) => {
        const [h, i, j] = [Math.floor(n / (L * L)), Math.floor(n / L) % L, n % L];
        return bias[h * (2 * L - 1) + j - i + L - 1];
      });
      expect([...whole]).toEqual([...want]);
    });

    for (const [dtype, tolerance] of [["f32", 2e-5], ["f64", 3e-7]] as const) {
      test(`values, ${dtype}`, () => {
        const y = runGoldenUmt5(device(), { dtype, masked: true });
        expect(relativeError(y, hostValues(g.get("y")))).toBeLessThan(tolerance);
        expect(relativeError(runGoldenUmt5(device(), { dtype, masked: false }), hostValues(g.get("y_no_mask")))).toBeLessThan(tolerance);
        const [, L, D] = g.get("y").shape;
        const padded = y.map((v, i) => (Math.floor(i / D) % L < lengthsOf()[Math.floor(i / (L * D))] ? v : 0));
        expect(relativeError(padded, hostValues(g.get("y_zero_padded")))).toBeLessThan(tolerance);
      });
    }

    for (const [dtype, tolerance] of [["bf16", 2.5e-2], ["f16", 8e-3]] as const) {
      test(`values, ${dtype}`, () => expect(relativeError(runGoldenUmt5(device(), { dtype, masked: true }), hostValues(g.get("y")))).toBeLessThan(tolerance));
    }
  });
}
