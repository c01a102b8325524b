import { afterAll, beforeAll, describe, expect } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hostTensor, hostValues } from "../../../core/dtype.ts";
import { OUT_DTYPES } from "../../../core/export/convert.ts";
import { exportWeights, type ExportSummary } from "../../../core/export/run.ts";
import { lowRank } from "../../../core/export/svd.ts";
import { times } from "../../../core/ops/nondiff/matmul.ts";
import { gpuTier } from "../../harness/device.ts";
import { tinyWeights, writeWeights } from "../../harness/wan_files.ts";

const { device, test } = gpuTier();

describe("gpu: export", () => {
  let dir = "";
  const at = (name: string): string => join(dir, name);
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), "rcm-gpu-export-"));
    const base = tinyWeights(41);
    writeWeights(at("base.safetensors"), base);
    writeWeights(
      at("student.safetensors"),
      new Map(
        [...base].map(([name, t]) => [
          name,
          hostTensor(
            "f32", t.shape, hostValues(t).map((v, i) => v + 0.01 * Math.sin(i * i)),
          ),
        ]),
      ),
    );
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  const both = (out: string, o: Partial<Parameters<typeof exportWeights>[0]>): ExportSummary[] =>
    (["cuda", "cpu"] as const).map((kind) =>
      exportWeights({
        weights: at("student.safetensors"), kind: "ema", out: at(`${kind}-${out}`), dtype: "f32", metadata: {},
        device: { device: kind }, ...o,
      }),
    );
  const sameFiles = (out: string): boolean =>
    Buffer.compare(readFileSync(at(`cuda-${out}`)), readFileSync(at(`cpu-${out}`))) === 0;

  test("every dtype: the file of the CPU, byte for byte", () => {
    for (const dtype of OUT_DTYPES) {
      both(`${dtype}.safetensors`, { dtype });
      expect([dtype, sameFiles(`${dtype}.safetensors`)]).toEqual([dtype, true]);
    }
  });

  test("merge: the file of the CPU, byte for byte", () => {
    both("merged.safetensors", {
      merge: { target: at("base.safetensors"), base: at("base.safetensors"), weight: 0.5 },
    });
    expect(sameFiles("merged.safetensors")).toBe(true);
  });

  test("LoRA: every layer's error is that of the CPU", () => {
    const [gpu, cpu] = both("lora.safetensors", { lora: { base: at("base.safetensors"), rank: 16 } });
    expect(gpu.lora?.layers.length).toBeGreaterThan(20);
    gpu.lora?.layers.forEach((l, i) =>
      expect([l.name, Math.abs(l.error - (cpu.lora?.layers[i].error ?? 0)) < 1e-3]).toEqual([l.name, true]),
    );
  }, 600_000);

  test("a matrix of the 14B network: rank 8 comes back to round-off", () => {
    using _scope = device().scope();
    const [u, v] = [device().randn([13824, 8], "f64", 1, 1), device().randn([8, 5120], "f64", 2, 2)];
    const matrix = times(u, v);
    const found = lowRank(matrix, 64);
    if (!found) throw new Error("nothing found");
    expect(found.sigma.length).toBe(8);
    const size = Math.max(...matrix.window(0, [5120]).values().map(Math.abs));
    const rest = times(found.up, found.down).axpy(matrix, -1);
    expect(Math.max(...rest.window(0, [100_000]).values().map(Math.abs)) / size).toBeLessThan(1e-10);
  }, 600_000);
});
