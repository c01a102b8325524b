import { describe, expect } from "bun:test";
import type { DType, HostTensor } from "../../../core/dtype.ts";
import { UMT5_PRESETS } from "../../../core/models/umt5/config.ts";
import { Umt5Encoder } from "../../../core/models/umt5/model.ts";
import { cpu, onEachDevice } from "../../harness/device.ts";
import { umt5 } from "../../harness/reference/networks/umt5.ts";
import { plain } from "../../harness/reference/plain.ts";

const CONFIG = { ...UMT5_PRESETS["umt5-tiny"], dim: 64, dimAttn: 64, ffnDim: 96, layers: 24 };
const IDS = Array.from({ length: 40 }, (_, i) => (37 * i + 5) % CONFIG.vocab);

/** 24 random layers with weights that bf16 holds exactly. */
function drawnWeights(): Map<string, HostTensor> {
  using _scope = cpu().scope();
  using encoder = Umt5Encoder.create(cpu(), CONFIG, { dtype: "bf16" });
  encoder.params.init(7);
  return new Map(encoder.params.entries());
}

const rms = (a: Float64Array, b: Float64Array): number =>
  Math.sqrt(a.reduce((s, v, i) => s + (v - b[i]) ** 2, 0) / b.reduce((s, v) => s + v * v, 0));

onEachDevice((device, test) => {
  describe("umT5 residual stream", () => {
    const run = (weights: Map<string, HostTensor>, dtype: DType, residual: DType | undefined): Float64Array => {
      using _scope = device().scope();
      using encoder = Umt5Encoder.create(device(), CONFIG, { dtype, residual });
      encoder.params.load(weights, "drawn");
      return encoder.forward(device().fromValues(IDS, [1, IDS.length], "i32"), null).values();
    };

    test("an f32 sum with bf16 weights is nearer to f64 than the public code's bf16 sum", () => {
      const weights = drawnWeights();
      const plainRun = (dtype: DType, residual: DType): Float64Array => {
        const ids = plain([1, IDS.length], Float64Array.from(IDS));
        return umt5({ config: CONFIG, weights, ids, lengths: null, dtype, residual }).v;
      };
      const want = plainRun("f64", "f64");
      expect(rms(run(weights, "f64", undefined), want)).toBeLessThan(1e-12);
      const [wide, narrow] = [rms(run(weights, "bf16", undefined), want), rms(run(weights, "bf16", "bf16"), want)];
      expect(wide).toBeLessThan(2 * rms(plainRun("bf16", "f32"), want));
      expect(narrow).toBeGreaterThan(1.2 * wide);
    }, 60_000);
  });
});
