import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hostTensor, numel, type HostTensor } from "../../../core/dtype.ts";
import { writeShards, type Sample } from "../../../core/io/webdataset.ts";
import { loadRecipe } from "../../../core/recipe/load.ts";
import { Rng } from "../../../core/rng.ts";
import { collate } from "../../../core/train/batch.ts";
import { distill } from "../../../core/train/run.ts";
import { planRun } from "../../../core/train/plan.ts";
import { padded } from "../../../core/text/embedder.ts";
import { hasNonfinite } from "../../../core/data/inspect.ts";
import { inspectRun } from "../../../core/data/inspect_run.ts";
import { roundTrip } from "../../../core/models/round_trip.ts";
import { Device } from "../../../core/tensor.ts";
import { openVae } from "../../../core/weights/vae.ts";
import { writeText } from "../../harness/tiny_files.ts";
import {
  textEmbedding,
  TINY_SETS,
  TINY_SHAPE,
  writeTinyTeacher,
  writeTinyTexts,
  writeTinyVae,
} from "../../harness/wan_twin.ts";

const ROOT = join(import.meta.dir, "../../..");
const recipes = readdirSync(join(ROOT, "recipes/wan2.1"))
  .filter((f) => f !== "base.yaml")
  .sort();
let dir = "";

const latent = (seed: number): HostTensor =>
  hostTensor(
    "bf16",
    TINY_SHAPE,
    (() => {
      const rng = new Rng(seed, 6);
      return Float64Array.from({ length: numel(TINY_SHAPE) }, () => rng.normal());
    })(),
  );

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "rcm-twins-"));
  writeTinyTeacher(join(dir, "teacher.pth"), 5);
  const { negative } = writeTinyTexts(dir, 1);
  const sample = (i: number): Sample => ({
    key: String(i),
    latent: latent(i),
    embed: padded(textEmbedding(i, 5), 512, "bf16"),
    prompt: `prompt ${i}`,
  });
  writeShards(
    join(dir, "data"),
    Array.from({ length: 5 }, (_, i) => sample(i)),
  );
  const text = writeText(dir, 4096);
  writeTinyVae(join(dir, "vae.pth"));
  Object.assign(process.env, {
    WAN_TEXT_CACHE: join(dir, "texts"),
    WAN_TEACHER: join(dir, "teacher.pth"),
    WAN_DATA: join(dir, "data"),
    WAN_NEGATIVE_EMBED: negative,
    WAN_TEXT_ENCODER: text.weights,
    WAN_TOKENIZER: text.tokenizer,
  });
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** A recipe's twin: its objectives, schedules and precision, one block of width 128 and small latents. */
function twin(file: string, more: string[] = []) {
  const short = file.includes("14b") || /-(scm|dcm|dmd)\./.test(file) ? [] : ["objective.consistency.tangent_warmup=2"];
  const frames = file.includes("14b") ? [] : ["data.frames=2"];
  const shown = file.includes("samples") ? ["train.sample_every=5", "sample.steps=[1,2]"] : [];
  return loadRecipe(join(ROOT, "recipes/wan2.1", file), [
    ...TINY_SETS,
    ...short,
    ...frames,
    ...shown,
    "train.accumulate=1",
    "train.keep_checkpoints=1",
    "train.steps=5",
    ...more,
  ]);
}

describe("tiny twins of the Wan2.1 recipes", () => {
  test("there is one for each recipe", () => expect(recipes.length).toBeGreaterThanOrEqual(8));

  for (const file of recipes) {
    test(`${file}: planned, trained 5 steps, finite`, async () => {
      const recipe = twin(file);
      const plan = planRun({ recipe: recipe.recipe, out: join(dir, file), device: "cpu", memory: null });
      expect(plan.problems).toEqual([]);
      const s = await distill({
        recipe,
        out: join(dir, file),
        device: "cpu",
        threads: 2,
        resume: false,
        onEvent: () => {},
        shouldStop: () => false,
      });
      expect(s.steps).toBe(5);
      const lines = readFileSync(join(dir, file, "metrics.jsonl"), "utf8")
        .trim()
        .split("\n")
        .map((l) => JSON.parse(l));
      expect(lines.every((l) => Object.values(l).every((v) => typeof v === "string" || Number.isFinite(v)))).toBe(true);
      const losses = new Set(lines.flatMap((l) => Object.keys(l).filter((k) => k.endsWith("_loss"))));
      const { consistency, dmd } = recipe.recipe.objective;
      const wanted = [
        ...(consistency ? [`${consistency.kind}_loss`] : []),
        ...(dmd ? ["dmd_loss", "critic_loss"] : []),
      ];
      expect([...losses].sort()).toEqual(wanted.sort());
      const sheets = recipe.recipe.train.sample_every > 0 ? readdirSync(join(dir, file, "samples")).sort() : [];
      expect(sheets).toEqual(file.includes("samples") ? ["step_000000005.png"] : []);
    }, 120_000);
  }

  test("a round trip through the VAE changes what is trained on, and its memory is planned", async () => {
    const trained = async (name: string, more: string[]): Promise<Record<string, number>> => {
      const recipe = twin("t2v-1.3b-480p-scm.yaml", ["train.steps=1", ...more]);
      const plan = planRun({ recipe: recipe.recipe, out: join(dir, name), device: "cpu", memory: null });
      expect(plan.problems).toEqual([]);
      expect(plan.memory.items.some((i) => i.name === "VAE weights")).toBe(more.length > 0);
      return (
        await distill({
          recipe,
          out: join(dir, name),
          device: "cpu",
          threads: 2,
          resume: false,
          onEvent: () => {},
          shouldStop: () => false,
        })
      ).last;
    };
    const [plain, through] = [
      await trained("plain", []),
      await trained("through", [`data.vae_round_trip=${join(dir, "vae.pth")}`]),
    ];
    expect([plain, through].every((r) => Object.values(r).every(Number.isFinite))).toBe(true);
    expect(through.scm_g).not.toBe(plain.scm_g);
    using device = Device.open({ device: "cpu", threads: 2 });
    const vae = openVae(device, join(dir, "vae.pth"), "f32");
    const back = roundTrip(vae, hostTensor("bf16", [1, 16, 2, 4, 6], new Float64Array(768).fill(0.5)));
    expect([back.dtype, back.shape]).toEqual(["f32", [1, 16, 2, 4, 6]]);
    expect(hasNonfinite(back)).toBe(false);
    const wrong = planRun({
      recipe: twin("t2v-1.3b-480p.yaml", [`data.vae_round_trip=${join(dir, "teacher.pth")}`]).recipe,
      out: dir,
      device: "cpu",
      memory: null,
    });
    expect(wrong.problems).toEqual([expect.stringContaining("holds no Wan VAE")]);
  }, 120_000);

  test("inspect decodes the first frames with the VAE", () => {
    const sheet = join(dir, "decoded.png");
    inspectRun({
      inputs: [join(dir, "data")],
      statistics: 1,
      count: 2,
      sheet,
      vae: join(dir, "vae.pth"),
      device: "cpu",
      threads: 2,
    });
    const png = readFileSync(sheet);
    expect([png.readUInt32BE(16), png.readUInt32BE(20)]).toEqual([6 * (6 * 8 + 2) + 2, 4 * 8 + 4]);
  }, 120_000);

  test("stored latents are cut to the first frames of each channel", () => {
    const { recipe } = twin("t2v-1.3b-480p.yaml");
    const [C, , Y, X] = TINY_SHAPE;
    const stored = latent(1);
    const batch = collate(
      [{ key: "a", latent: stored, embed: padded(textEmbedding(1, 2), 512, "bf16"), prompt: "" }],
      recipe,
      [512, 4096],
    );
    expect(batch.latents.shape).toEqual([1, C, 2, Y, X]);
    const each = 2 * Y * X * 2;
    for (let c = 0; c < C; c++)
      expect(
        Buffer.compare(
          batch.latents.data.subarray(c * each, (c + 1) * each),
          stored.data.subarray((c * each * 3) / 2, (c * each * 3) / 2 + each),
        ),
      ).toBe(0);
    expect(() =>
      collate(
        [{ key: "b", latent: { ...stored, shape: [C, 2, 6, 6] }, embed: textEmbedding(1, 2), prompt: "" }],
        recipe,
        [512, 4096],
      ),
    ).toThrow("latent of sample b does not fit");
  });

  test("a video model without text says so", () => {
    expect(() => loadRecipe(join(ROOT, "recipes/wan2.1/t2v-1.3b-480p.yaml"), ["teacher.negative_embed=null"])).toThrow(
      "teacher.negative_embed: found nothing",
    );
    expect(() => loadRecipe(join(ROOT, "recipes/wan2.1/t2v-1.3b-480p.yaml"), ["train.sample_every=5"])).toThrow(
      "train.sample_every: found 5 without text",
    );
    expect(() => loadRecipe(join(ROOT, "recipes/wan2.1/t2v-1.3b-480p.yaml"), ["data.frames=22"])).toThrow(
      "allowed at most the 21 frames",
    );
  });
});
