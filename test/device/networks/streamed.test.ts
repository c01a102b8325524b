import { describe, expect } from "bun:test";
import type { DType } from "../../../core/dtype.ts";
import type { Net } from "../../../core/models/family.ts";
import { WanNet } from "../../../core/models/wan/net.ts";
import { wanParams } from "../../../core/models/wan/params.ts";
import { StreamedWeights } from "../../../core/networks/streamed.ts";
import { at } from "../../../core/diffusion/predict.ts";
import { constant, Tape } from "../../../core/tape.ts";
import { velocityNet } from "../../../core/networks/network.ts";
import { onEachDevice } from "../../harness/device.ts";
import { randomize, TINY_WAN, tinyWan } from "../../harness/tiny_wan.ts";

/** Streamed weights against resident ones. */

onEachDevice((device, test) => {
  describe("streamed weights", () => {
    const cases: [number, DType][] = [[1, "f32"], [2, "f32"], [3, "bf16"], [6, "bf16"]];
    for (const [layers, dtype] of cases) {
      test(`${layers} blocks, ${dtype}: bitwise as resident weights, over evaluations, release and return`, () => {
        const d = device();
        // On a GPU blocks are large enough that copies and compute overlap.
        const sizes = d.backend.kind === "cuda" ? { dim: 1024, heads: 8, ffnDim: 4096 } : {};
        const config = { ...TINY_WAN, layers, ...sizes };
        const options = { dtype, residual: "f32" as const, checkpoint: "none" as const };
        const model = tinyWan(d, config, dtype);
        using weights = new StreamedWeights(d, wanParams(config), dtype, (part) => randomize(part), 4);
        const streamed = new WanNet(config, weights, options);
        using _scope = d.scope();
        const x = d.randn([1, 2, 16, 8, 8], "f32", 3, 1);
        const context = d.randn([1, config.textLen, config.textDim], "f32", 3, 2);
        const run = (graph: Net, t: number): Float64Array => {
          const tape = new Tape(d, { record: false });
          return velocityNet(graph)(tape, constant(x), at(Float64Array.of(t)), context).x.values();
        };
        for (const t of [0.95, 0.5, 0.1]) {
          const want = run(model, t);
          expect(want.every(Number.isFinite)).toBe(true);
          expect(want.some((v) => v !== 0)).toBe(true);
          expect(run(streamed, t)).toEqual(want);
          if (t === 0.5) {
            const before = d.memory().current;
            weights.release();
            expect(weights.resident).toBe(false);
            expect(d.memory().current).toBeLessThan(before);
          }
        }
        model.params.flat.free();
      }, 120_000);
    }

    test("what cannot be read is an error, and no host memory stays behind", () => {
      const d = device();
      const refuse = (): never => {
        throw new Error("no such file");
      };
      expect(() => new StreamedWeights(d, wanParams(TINY_WAN), "f32", refuse)).toThrow("no such file");
    });
  });
});
