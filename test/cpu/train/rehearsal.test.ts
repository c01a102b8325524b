import { describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadRecipe } from "../../../core/recipe/load.ts";
import type { Recipe } from "../../../core/recipe/schema.ts";
import { CHECKPOINT_MODES } from "../../../core/tape.ts";
import { Device } from "../../../core/tensor.ts";
import { checkpointBytes, loadCheckpoint, saveCheckpoint } from "../../../core/train/checkpoint.ts";
import { rehearse } from "../../../core/train/rehearsal.ts";
import type { Trainer } from "../../../core/train/trainer.ts";
import { measure, setUp } from "../../harness/measured_run.ts";
import { TINY_SETS } from "../../harness/wan_twin.ts";

const ROOT = join(import.meta.dir, "../../..");
const VARIABLES = { WAN_TEACHER: "teacher", WAN_DATA: "data", WAN_NEGATIVE_EMBED: "negative" };

function recipe(name: string, sets: string[]): Recipe {
  Object.assign(process.env, VARIABLES);
  return loadRecipe(join(ROOT, "recipes", name), sets).recipe;
}

describe("the prediction of a run", () => {
  const wan = ["model.layers=3", "data.shape=[16,4,8,12]", "data.frames=3", "objective.consistency.tangent_warmup=3"];
  const cases: [string, string, string[]][] = [
    ...CHECKPOINT_MODES.map((mode): [string, string, string[]] => [
      `Wan twin, bf16, checkpoint ${mode}`, "wan2.1/t2v-1.3b-480p.yaml",
      [...TINY_SETS, ...wan, `model.checkpoint=${mode}`],
    ]),
    ["Wan twin, pure sCM, batch 2", "wan2.1/t2v-1.3b-480p-scm.yaml", [...TINY_SETS, ...wan, "train.batch=2"]],
    [
      "Wan twin, DMD, accumulated", "wan2.1/t2v-1.3b-480p-dmd.yaml",
      [...TINY_SETS, ...wan.slice(0, 3), "train.accumulate=2"],
    ],
    ["digits, rCM", "digits/rcm.yaml", ["train.batch=8"]],
    ["digits, MeanFlow", "digits/meanflow.yaml", ["train.batch=8"]],
    ["digits, teacher", "digits/teacher.yaml", ["train.batch=8"]],
  ];
  for (const [name, file, sets] of cases) {
    test(`${name}: memory within 1 % of the measured peak, work exactly`, () => {
      const r = recipe(file, [...sets, "train.sample_every=0"]);
      const predicted = rehearse(r, "cpu");
      const measured = measure(r);
      expect(Math.abs(predicted.peakBytes / measured.peak - 1)).toBeLessThan(0.01);
      for (const [turn, flop] of Object.entries(measured.flop))
        expect([turn, predicted.turns.find((t) => t.name === turn)?.flop]).toEqual([turn, flop]);
    }, 60_000);
  }

  test("1.3B at true shape on one card of 80 GiB: every item of the published recipe", () => {
    const p = rehearse(recipe("wan2.1/t2v-1.3b-480p.yaml", []), "cuda");
    expect(p.parameters).toBe(1_418_996_800);
    expect(p.tokens).toBe(31_200);
    const bytes = Object.fromEntries(p.resident.map((i) => [i.name, i.bytes]));
    const [half, full] = [2 * p.parameters, 4 * p.parameters];
    for (const role of ["student", "critic"]) {
      expect(bytes[`${role} weights`]).toBe(half);
      for (const state of ["masters", "second moments"]) expect(bytes[`${role} ${state}`]).toBe(full);
    }
    expect(bytes.gradients).toBe(full); // one buffer for both
    expect(bytes["student EMA"]).toBe(full);
    expect(bytes["teacher weights"]).toBe(half);
    expect(Object.keys(bytes).filter((n) => n.includes("first moments"))).toEqual([]);
    expect(p.peakBytes).toBeLessThan(70e9);
    expect(p.checkpointBytes).toBe(5 * full);
  });
});

describe("checkpoints pass through in pieces", () => {
  test("a checkpoint has the bytes that were predicted and comes back bitwise, bf16 weights from their masters", () => {
    const folder = mkdtempSync(join(tmpdir(), "rcm-plan-"));
    try {
      const r = recipe("wan2.1/t2v-1.3b-480p.yaml", [
        ...TINY_SETS, "data.frames=2", "objective.consistency.tangent_warmup=2",
      ]);
      using device = Device.open({ device: "cpu", threads: 2 });
      const { trainer, batch } = setUp(device, r);
      for (let i = 0; i < 3; i++) trainer.iterate([batch]);
      const position = { epoch: 0, index: 3, seed: 0, rank: 0, world: 1, shuffleBuffer: 1, data: 1 };
      const path = saveCheckpoint(trainer, folder, { recipeHash: "hash", data: position, keep: 1 });
      expect(checkpointBytes(trainer)).toBe(rehearse(r, "cpu").checkpointBytes);
      const other = setUp(device, { ...r, train: { ...r.train, seed: 9 } }).trainer;
      expect(loadCheckpoint(other, path, "hash")).toEqual(position);
      const bytes = (t: Trainer): Buffer[] =>
        [...t.roles.values()]
          .filter((r) => r.optimizer)
          .flatMap((r) => r.buffers().map((b) => Buffer.from(b.tensor.toHost().data)));
      bytes(trainer).forEach((b, i) => expect(Buffer.compare(b, bytes(other)[i])).toBe(0));
      expect(readdirSync(folder)).toEqual(["checkpoint_000000003.safetensors"]);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }, 60_000);

  test("train.deterministic reaches the library", () => {
    const opened = Device.open({ device: "cpu", threads: 1 });
    const seen: number[] = [];
    using device = new Device({
      ...opened.backend,
      lib: { ...opened.lib, deterministic: (mode: number) => void seen.push(mode) } as typeof opened.lib,
    });
    for (const sets of [[], ["train.deterministic=false"]])
      setUp(
        device,
        recipe("wan2.1/t2v-1.3b-480p.yaml", [
          ...TINY_SETS, "data.frames=2", "objective.consistency.tangent_warmup=2", ...sets,
        ]),
      );
    expect(seen).toEqual([1, 0]);
  });

  test("pieces of any size are the tensor", () => {
    using device = Device.open({ device: "cpu", threads: 1 });
    const t = device.randn([1000, 7], "f32", 1, 1);
    const whole = Buffer.from(t.toHost().data);
    for (const most of [1024, 4096, 1 << 20]) {
      const pieces = Array.from(t.hostChunks(most), (p) => Buffer.from(p));
      expect(Buffer.compare(Buffer.concat(pieces), whole)).toBe(0);
      const back = device
        .empty([1000, 7], "f32")
        .setChunks((buffer, at) => void buffer.set(whole.subarray(at, at + buffer.length)), most);
      expect(Buffer.compare(Buffer.from(back.toHost().data), whole)).toBe(0);
    }
  });
});
