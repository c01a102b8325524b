import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makeDigits } from "../../../core/data/digits.ts";
import { exportWeights } from "../../../core/export/run.ts";
import { readWeights } from "../../../core/weights/resolve.ts";
import { readSafetensors } from "../../../core/io/safetensors.ts";
import { loadRecipe, type LoadedRecipe } from "../../../core/recipe/load.ts";
import { Device } from "../../../core/tensor.ts";
import { listCheckpoints } from "../../../core/weights/run_folder.ts";
import { distill } from "../../../core/train/run.ts";

const ROOT = join(import.meta.dir, "../../..");
let folder = "";

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "rcm-train-"));
  makeDigits({ out: join(folder, "digits"), split: "train", limit: 96, textLen: 24, textDim: 32 });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const SMALL = [
  "model.dim=32", "model.layers=1", "model.ffn_dim=48", "model.heads=2", "train.batch=4", "train.sample_every=0",
  "data.shuffle_buffer=20",
];

/** A recipe at toy size: same losses, one block, random teacher. */
function recipe(name: string, sets: string[]): LoadedRecipe {
  const digits = [`data.path=${join(folder, "digits")}`, ...SMALL];
  if (name === "teacher") return loadRecipe(join(ROOT, "recipes/digits/teacher.yaml"), [...digits, ...sets]);
  return loadRecipe(join(ROOT, `recipes/digits/${name}.yaml`), [
    ...digits, `teacher.weights=${join(folder, "teacher.safetensors")}`, ...sets,
  ]);
}

const run = (r: LoadedRecipe, out: string, o: { resume?: boolean; stopAt?: number } = {}) => {
  let step = 0;
  return distill({
    recipe: r,
    out: join(folder, out),
    device: "cpu",
    threads: 2,
    resume: o.resume ?? false,
    onEvent: (e) => {
      if (e.kind === "step") step = e.step;
    },
    shouldStop: () => o.stopAt !== undefined && step >= o.stopAt,
  });
};

const checkpointBytes = (out: string): Buffer => {
  const all = listCheckpoints(join(folder, out, "checkpoints"));
  return readFileSync(all[all.length - 1].path);
};

describe("training runs", () => {
  test("a tiny teacher trains and its loss falls", async () => {
    const r = recipe("teacher", [
      "train.steps=60", "optimizer.warmup_steps=5", "optimizer.decay_steps=0", "optimizer.lr=0.003",
    ]);
    await run(r, "teacher");
    exportWeights({
      weights: join(folder, "teacher"), kind: "student", out: join(folder, "teacher.safetensors"), dtype: "f32",
      prefix: "", metadata: {},
    });
    const lines = readFileSync(join(folder, "teacher/metrics.jsonl"), "utf8")
      .trim()
      .split("\n")
      .map((l) => JSON.parse(l));
    expect(lines.map((l) => l.step)).toEqual(Array.from({ length: 60 }, (_, i) => i + 1));
    const mean = (part: { flow_loss: number }[]): number => part.reduce((s, l) => s + l.flow_loss, 0) / part.length;
    expect(mean(lines.slice(-15))).toBeLessThan(0.93 * mean(lines.slice(0, 15)));
    expect(readdirSync(join(folder, "teacher/tensorboard")).length).toBe(1);
  });

  for (const name of ["rcm", "scm", "dmd", "dcm", "meanflow"]) {
    test(`${name}: 6 + resume 6 = 12, bitwise; the resolved recipe reproduces it`, async () => {
      const sets = ["train.steps=12", "train.checkpoint_every=4", "optimizer.warmup_steps=3"];
      if (name === "rcm") sets.push("objective.consistency.tangent_warmup=3");
      const r = recipe(name, sets);
      await run(r, `${name}-whole`);
      const stopped = run(r, `${name}-parts`, { stopAt: 6 });
      expect(stopped).rejects.toMatchObject({ code: "E_INTERRUPTED" });
      await stopped.catch(() => {});
      await run(loadRecipe(join(folder, `${name}-parts/recipe.yaml`)), `${name}-parts`, { resume: true });
      expect(Buffer.compare(checkpointBytes(`${name}-parts`), checkpointBytes(`${name}-whole`))).toBe(0);
      const strip = (out: string) =>
        readFileSync(join(folder, out, "metrics.jsonl"), "utf8")
          .trim()
          .split("\n")
          .map((l) => ({ ...JSON.parse(l), seconds: 0 }));
      expect(strip(`${name}-parts`)).toEqual(strip(`${name}-whole`));
      expect(
        strip(`${name}-whole`).every((l) => Object.values(l).every((v) => typeof v === "string" || Number.isFinite(v))),
      ).toBe(true);
    });
  }

  test("checkpointing a block changes nothing but the memory", async () => {
    for (const mode of ["block", "attention", "matmul"]) {
      const sets = ["train.steps=4", "objective.consistency.tangent_warmup=1"];
      await run(recipe("rcm", sets), `plain-${mode}`);
      await run(recipe("rcm", [...sets, `model.checkpoint=${mode}`]), `saved-${mode}`);
      expect(Buffer.compare(checkpointBytes(`plain-${mode}`), checkpointBytes(`saved-${mode}`))).toBe(0);
    }
  });

  test("gradient accumulation: 2 x 4 samples draw as the seed says and finish", async () => {
    const s = await run(recipe("scm", ["train.steps=3", "train.accumulate=2"]), "accumulate");
    expect(s.steps).toBe(3);
    expect(Number.isFinite(s.last.scm_loss)).toBe(true);
  });

  test("bf16 weights with f32 masters and an f32 residual stream train, resume bitwise, and export", async () => {
    const sets = ["train.steps=6", "model.dtype=bf16", "train.checkpoint_every=3"];
    const r = recipe("rcm", [...sets, "objective.consistency.tangent_warmup=2"]);
    await run(r, "bf16-whole");
    await run(r, "bf16-parts", { stopAt: 3 }).catch(() => {});
    await run(r, "bf16-parts", { resume: true });
    expect(Buffer.compare(checkpointBytes("bf16-parts"), checkpointBytes("bf16-whole"))).toBe(0);
    const names = [...readSafetensors(listCheckpoints(join(folder, "bf16-whole/checkpoints"))[0].path).tensors.keys()];
    expect(names.some((n) => n.startsWith("student.master/"))).toBe(true);
  });

  test("an existing run is not overwritten, and another recipe's checkpoint is refused", async () => {
    const r = recipe("scm", ["train.steps=3"]);
    await run(r, "kept");
    const before = checkpointBytes("kept");
    await expect(run(r, "kept")).rejects.toMatchObject({ code: "E_STATE" });
    await expect(
      run(recipe("scm", ["train.steps=6", "optimizer.lr=0.5"]), "kept", { resume: true }),
    ).rejects.toMatchObject({ code: "E_STATE" });
    expect(Buffer.compare(checkpointBytes("kept"), before)).toBe(0);
  });

  test("a damaged checkpoint is refused by name", async () => {
    const r = recipe("scm", ["train.steps=2"]);
    await run(r, "damaged");
    const [{ path }] = listCheckpoints(join(folder, "damaged/checkpoints"));
    writeFileSync(path, readFileSync(path).subarray(0, 5000));
    await expect(run(recipe("scm", ["train.steps=4"]), "damaged", { resume: true })).rejects.toMatchObject({
      code: "E_FORMAT",
      message: expect.stringContaining("checkpoint_000000002"),
    });
  });

  test("a learning rate that blows up raises E_NONFINITE with loss, tensor and step", async () => {
    const r = recipe("scm", ["train.steps=200", "optimizer.lr=1e30", "optimizer.warmup_steps=0"]);
    const failed = run(r, "nan");
    await expect(failed).rejects.toMatchObject({ code: "E_NONFINITE", message: expect.stringMatching(/step \d+/) });
  });

  test("export: safetensors and pth, f32 and bf16, read back bitwise and equal to the EMA", () => {
    const ema = readWeights(join(folder, "rcm-whole"));
    for (const ending of ["safetensors", "pth"]) {
      const out = join(folder, `exported.${ending}`);
      exportWeights({
        weights: join(folder, "rcm-whole"), kind: "ema", out, dtype: "f32", prefix: "net.",
        metadata: { recipe_hash: "abc" },
      });
      const back = readWeights(out);
      expect([...back.keys()]).toEqual([...ema.keys()]);
      for (const [name, t] of ema) expect(Buffer.compare(back.get(name)?.data as Uint8Array, t.data)).toBe(0);
      const half = exportWeights({
        weights: out, kind: "ema", out: join(folder, `half.${ending}`), dtype: "bf16", prefix: "", metadata: {},
      });
      expect(half.bytes).toBe([...ema.values()].reduce((n, t) => n + t.data.length / 2, 0));
    }
    expect(readSafetensors(join(folder, "exported.safetensors")).metadata.recipe_hash).toBe("abc");
    expect(existsSync(join(folder, "exported.pth"))).toBe(true);
  });

  test("memory stays flat over 10,000 steps", async () => {
    const sizes = [
      "model.dim=8", "model.ffn_dim=8", "train.batch=1", "train.steps=10000", "train.checkpoint_every=100000",
      "train.log_every=100000",
    ];
    const r = loadRecipe(join(ROOT, "recipes/digits/teacher.yaml"), [
      `data.path=${join(folder, "digits")}`, ...SMALL, ...sizes,
    ]);
    const device = Device.open({ device: "cpu", threads: 2 });
    const marks: { blocks: number; reserved: number; rss: number }[] = [];
    await distill({
      recipe: r,
      out: join(folder, "long"),
      device: "cpu",
      threads: 1,
      resume: false,
      shouldStop: () => false,
      onEvent: (e) => {
        if (e.kind === "step" && (e.step === 1000 || e.step === 10000)) {
          Bun.gc(true);
          marks.push({ ...device.memory(), rss: process.memoryUsage.rss() });
        }
      },
    });
    expect(marks[1].blocks).toBe(marks[0].blocks);
    expect(marks[1].reserved).toBe(marks[0].reserved);
    expect(marks[1].rss - marks[0].rss).toBeLessThan(64 * 2 ** 20);
  }, 600_000);
});
