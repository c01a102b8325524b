import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hostTensor, numel, type HostTensor } from "../../core/dtype.ts";
import { writeShards, type Sample } from "../../core/io/webdataset.ts";
import { loadRecipe } from "../../core/recipe/load.ts";
import { Rng } from "../../core/rng.ts";
import { collate, distill } from "../../core/train/run.ts";
import { planRun } from "../../core/train/plan.ts";
import { padEmbedding } from "../../core/data/prompts.ts";
import { textEmbedding, TINY_SETS, TINY_SHAPE, writeTinyTeacher, writeTinyTexts } from "../harness/wan_twin.ts";

const ROOT = join(import.meta.dir, "../..");
const recipes = readdirSync(join(ROOT, "recipes/wan2.1")).filter((f) => f !== "base.yaml").sort();
let dir = "";

const latent = (seed: number): HostTensor => hostTensor("bf16", TINY_SHAPE, (() => { const rng = new Rng(seed, 6); return Float64Array.from({ length: numel(TINY_SHAPE) }, () => rng.normal()); })());

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "rcm-twins-"));
  writeTinyTeacher(join(dir, "teacher.pth"), 5);
  const { negative } = writeTinyTexts(dir, 1);
  const sample = (i: number): Sample => ({ key: String(i), latent: latent(i), embed: padEmbedding(textEmbedding(i, 5), 512, 4096, "test"), prompt: `prompt ${i}` });
  writeShards(join(dir, "data"), Array.from({ length: 5 }, (_, i) => sample(i)));
  Object.assign(process.env, { WAN_TEACHER: join(dir, "teacher.pth"), WAN_DATA: join(dir, "data"), WAN_NEGATIVE_EMBED: negative, WAN_TEXT_ENCODER: "none", WAN_TOKENIZER: "none" });
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** A recipe's twin: its objectives, schedules and precision, one block of width 128 and small latents. */
function twin(file: string) {
  const short = file.includes("14b") || /-(scm|dcm|dmd)\./.test(file) ? [] : ["objective.consistency.tangent_warmup=2"];
  const frames = file.includes("14b") ? [] : ["data.frames=2"];
  const plain = file.includes("samples") ? ["text=null", "train.sample_every=0"] : [];
  return loadRecipe(join(ROOT, "recipes/wan2.1", file), [...TINY_SETS, ...short, ...frames, ...plain, "train.accumulate=1", "train.keep_checkpoints=1"]);
}

describe("tiny twins of the Wan2.1 recipes", () => {
  test("there is one for each recipe", () => expect(recipes.length).toBeGreaterThanOrEqual(8));

  for (const file of recipes) {
    test(`${file}: planned, trained 8 steps, finite`, async () => {
      const recipe = twin(file);
      const plan = planRun({ recipe: recipe.recipe, out: join(dir, file), device: "cpu", memory: null });
      expect(plan.problems).toEqual([]);
      const s = await distill({ recipe, out: join(dir, file), device: "cpu", threads: 2, resume: false, onEvent: () => {}, shouldStop: () => false });
      expect(s.steps).toBe(8);
      const lines = readFileSync(join(dir, file, "metrics.jsonl"), "utf8").trim().split("\n").map((l) => JSON.parse(l));
      expect(lines.every((l) => Object.values(l).every((v) => typeof v === "string" || Number.isFinite(v)))).toBe(true);
      const losses = new Set(lines.flatMap((l) => Object.keys(l).filter((k) => k.endsWith("_loss"))));
      const { consistency, dmd } = recipe.recipe.objective;
      const wanted = [...(consistency ? [`${consistency.kind}_loss`] : []), ...(dmd ? ["dmd_loss", "critic_loss"] : [])];
      expect([...losses].sort()).toEqual(wanted.sort());
    }, 120_000);
  }

  test("stored latents are cut to the first frames of each channel", () => {
    const { recipe } = twin("t2v-1.3b-480p.yaml");
    const [C, , Y, X] = TINY_SHAPE;
    const stored = latent(1);
    const batch = collate([{ key: "a", latent: stored, embed: padEmbedding(textEmbedding(1, 2), 512, 4096, "test"), prompt: "" }], recipe, [512, 4096]);
    expect(batch.latents.shape).toEqual([1, C, 2, Y, X]);
    const each = 2 * Y * X * 2;
    for (let c = 0; c < C; c++) expect(Buffer.compare(batch.latents.data.subarray(c * each, (c + 1) * each), stored.data.subarray((c * each * 3) / 2, (c * each * 3) / 2 + each))).toBe(0);
    expect(() => collate([{ key: "b", latent: { ...stored, shape: [C, 2, 6, 6] }, embed: textEmbedding(1, 2), prompt: "" }], recipe, [512, 4096])).toThrow("latent of sample b does not fit");
  });

  test("a video model without text says so", () => {
    expect(() => loadRecipe(join(ROOT, "recipes/wan2.1/t2v-1.3b-480p.yaml"), ["teacher.negative_embed=null"])).toThrow("teacher.negative_embed: found nothing");
    expect(() => loadRecipe(join(ROOT, "recipes/wan2.1/t2v-1.3b-480p.yaml"), ["train.sample_every=5"])).toThrow("train.sample_every: found 5 without text");
    expect(() => loadRecipe(join(ROOT, "recipes/wan2.1/t2v-1.3b-480p.yaml"), ["data.frames=22"])).toThrow("allowed at most the 21 frames");
  });
});
