import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { HostTensor } from "../../../core/dtype.ts";
import { writeTorch } from "../../../core/io/torch.ts";
import { loadRecipe } from "../../../core/recipe/load.ts";
import { drawPrompts } from "../../../core/sample/prompts.ts";
import { NetworkEmbedder } from "../../../core/text/encoder.ts";
import { embedAll, textBatch, textsOf } from "../../../core/text/embedder.ts";
import { recipeEmbedder } from "../../../core/text/open.ts";
import { ByteEmbedder } from "../../../core/text/tokenizers/bytes.ts";
import { createNetwork } from "../../../core/networks/build.ts";
import { residentNet } from "../../../core/networks/net.ts";
import { recipePlan } from "../../../core/networks/plan.ts";
import { cpu } from "../../harness/device.ts";
import { TINY_TOKENIZER, tinyUmt5 } from "../../harness/tiny_umt5.ts";

const ROOT = join(import.meta.dir, "../../..");
const PROMPTS = ["a cat", "a brown dog", "a cat"];
let folder = "";
let encoder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "rcm-recipe-text-"));
  encoder = join(folder, "enc.pth");
  writeFileSync(encoder, writeTorch(tinyUmt5()));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const recipe = (...sets: string[]) =>
  loadRecipe(join(ROOT, "recipes/digits/scm.yaml"), ["model.layers=1", ...sets]).recipe;
const withText = () =>
  recipe(`text={encoder: ${encoder}, tokenizer: ${TINY_TOKENIZER}}`, "teacher.negative_prompt=blurred");

test("a recipe's text encoder embeds the prompts of sampling and is freed before", async () => {
  using _scope = cpu().scope();
  const r = withText();
  const { text } = createNetwork(cpu(), r, { trainable: false, secondTime: false }).spec;
  const before = cpu().memory().current;
  const embed = async (): Promise<HostTensor[]> => {
    using embedder = recipeEmbedder(cpu(), r, text);
    return textsOf(await embedAll(embedder, PROMPTS), PROMPTS);
  };
  const got = await embed();
  expect(cpu().memory().current).toBe(before);
  using own = NetworkEmbedder.open(cpu(), { weights: encoder, tokenizer: TINY_TOKENIZER, cache: null }, text);
  expect(got).toEqual(await own.embed(PROMPTS));
  expect(textBatch(cpu(), got, text).shape).toEqual([3, text.length, text.width]);
});

test("students and guided teachers are sampled with it; a batch changes nothing", async () => {
  using _scope = cpu().scope();
  const r = withText();
  const model = createNetwork(cpu(), r, { trainable: false, secondTime: false });
  model.params.init(1);
  cpu().lib.fill({
    out: model.params.tensor("head.head.weight").ptr, n: model.params.tensor("head.head.weight").numel, value: 0.01,
    dtype: model.params.tensor("head.head.weight").code,
  });
  const draw = async (from: typeof r, role: "student" | "teacher", batch: number): Promise<Float64Array> => {
    const plan = recipePlan(from, { role, steps: 1 });
    const job = { net: residentNet(model), plan, recipe: from, prompts: PROMPTS, negativePrompt: null, seed: 5, batch };
    return (await drawPrompts(cpu(), job)).latents.values();
  };
  for (const role of ["student", "teacher"] as const) {
    const y = await draw(r, role, 3);
    expect(y.every(Number.isFinite)).toBe(true);
    const apart = await draw(r, role, 1);
    expect(Math.max(...y.map((v, i) => Math.abs(v - apart[i])))).toBeLessThan(1e-4);
    expect(await draw(recipe(), role, 3)).not.toEqual(y);
  }
});

test("without a text section digits keep the byte-level encoder", async () => {
  using _scope = cpu().scope();
  const r = recipe();
  const { text } = createNetwork(cpu(), r, { trainable: false, secondTime: false }).spec;
  expect(await recipeEmbedder(cpu(), r, text).embed(PROMPTS)).toEqual(await new ByteEmbedder(text).embed(PROMPTS));
});
