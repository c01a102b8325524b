import { afterAll, beforeAll, describe, expect } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { synthRun, type SynthRunOptions } from "../../../core/synth/run.ts";
import { hostValues } from "../../../core/dtype.ts";
import { readShard } from "../../../core/io/webdataset.ts";
import { loadRecipe } from "../../../core/recipe/load.ts";
import type { Recipe } from "../../../core/recipe/schema.ts";
import { loadCheckpoint, saveCheckpoint } from "../../../core/train/checkpoint.ts";
import { rehearse } from "../../../core/train/rehearsal.ts";
import type { Trainer } from "../../../core/train/trainer.ts";
import { gpuTier } from "../../harness/device.ts";
import { measure, setUp } from "../../harness/measured_run.ts";
import { TINY_SETS, TINY_SHAPE, writeTinyTeacher, writeTinyTexts } from "../../harness/wan_twin.ts";

const { test, device } = gpuTier();
let dir = "";
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "rcm-gpu-wan-"));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

function recipe(sets: string[]): Recipe {
  Object.assign(process.env, { WAN_TEACHER: "teacher", WAN_DATA: "data", WAN_NEGATIVE_EMBED: "negative" });
  return loadRecipe(join(import.meta.dir, "../../../recipes/wan2.1/t2v-1.3b-480p.yaml"), sets).recipe;
}

describe("gpu: Wan runs", () => {
  // True widths and rows; few blocks and frames.
  const wide = [
    "model.layers=3", "data.shape=[16,5,60,104]", "data.frames=4", "objective.consistency.tangent_warmup=3",
  ];
  for (const mode of ["block", "attention", "matmul"]) {
    test(`memory at true width, checkpoint ${mode}: predicted within 10 %`, () => {
      const r = recipe([...wide, `model.checkpoint=${mode}`]);
      const [predicted, measured] = [rehearse(r, "cuda"), measure(r, "cuda")];
      expect(Math.abs(predicted.peakBytes / measured.peak - 1)).toBeLessThan(0.1);
      for (const [turn, flop] of Object.entries(measured.flop))
        expect([turn, predicted.turns.find((t) => t.name === turn)?.flop]).toEqual([turn, flop]);
    }, 600_000);
  }

  test("a checkpoint leaves the GPU in pieces and comes back bitwise", () => {
    using _scope = device().scope();
    const r = recipe([...TINY_SETS, "data.frames=2", "objective.consistency.tangent_warmup=2"]);
    const { trainer, batch } = setUp(device(), r);
    for (let i = 0; i < 4; i++) trainer.iterate([batch]);
    const position = { epoch: 0, index: 4, seed: 0, rank: 0, world: 1, shuffleBuffer: 1, data: 1 };
    const options = { recipeHash: "hash", data: position, keep: 1 };
    const path = saveCheckpoint(trainer, join(dir, "checkpoints"), options);
    const other = setUp(device(), { ...r, train: { ...r.train, seed: 9 } }).trainer;
    expect(loadCheckpoint(other, path, "hash")).toEqual(position);
    const bytes = (t: Trainer): Buffer[] =>
      [...t.roles.values()]
        .filter((r) => r.optimizer)
        .flatMap((r) => r.buffers().map((b) => Buffer.from(b.tensor.toHost().data)));
    bytes(trainer).forEach((b, i) => expect(Buffer.compare(b, bytes(other)[i])).toBe(0));
  }, 600_000);

  test("a teacher's samples are those of the CPU", async () => {
    writeTinyTeacher(join(dir, "teacher.pth"), 3, "f32");
    const texts = writeTinyTexts(dir, 2);
    const run = async (kind: "cpu" | "cuda"): Promise<Float64Array[]> => {
      const o: SynthRunOptions = {
        weights: join(dir, "teacher.pth"),
        prompts: texts.prompts,
        limit: 0,
        out: join(dir, kind),
        embeds: texts.embeds,
        encoder: null,
        negativeEmbed: texts.negative,
        negativePrompt: "",
        shape: TINY_SHAPE,
        sampler: { kind: "euler", steps: 8, sigmaMax: 5000, shift: 3, guidance: 5, seed: 0 },
        time: "exact",
        dtype: "f32",
        residual: "f32",
        batch: 2,
        perShard: 256,
        job: { index: 0, count: 1 },
        device: kind,
        shouldStop: () => false,
      };
      await synthRun(o);
      return readShard(join(dir, kind, "shard_000000.tar")).map((s) => hostValues(s.latent));
    };
    const [cpu, gpu] = [await run("cpu"), await run("cuda")];
    cpu.forEach((one, i) => {
      const error = Math.sqrt(
        one.reduce((s, v, k) => s + (v - gpu[i][k]) ** 2, 0) / one.reduce((s, v) => s + v * v, 0),
      );
      expect(error).toBeLessThan(0.01);
    });
  }, 600_000);
});
