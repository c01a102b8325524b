import { rmSync } from "node:fs";
import { join } from "node:path";
import { makeDigits } from "./data/digits.ts";
import { evaluateRecipe } from "./eval/run.ts";
import { exportWeights } from "./export/run.ts";
import { renderTable } from "./metrics/report.ts";
import { DIGITS_NET, presetNet } from "./models/families.ts";
import { loadRecipe } from "./recipe/load.ts";
import { distill } from "./train/run.ts";
import type { DeviceName } from "./tensor.ts";

export interface DemoOptions {
  out: string;
  device: DeviceName;
  threads: number;
  onStage: (text: string) => void;
  onProgress: (done: number, total: number, text: string, every: number) => void;
}

export interface DemoSummary {
  out: string;
  table: string;
  pictures: string[];
  report: string;
  exported: string;
  seconds: number;
  /** Label agreement by number of steps, and the teacher's. */
  agreement: Record<string, number>;
}

/** Samples per row of the demo's table: fewer than in the recipe's evaluation. */
const SAMPLES = 500;

/** A short end-to-end run: data, distillation from the shipped teacher, sampling, evaluation, export. */
export async function demo(o: DemoOptions): Promise<DemoSummary> {
  const began = performance.now();
  const recipes = join(import.meta.dir, "../recipes/digits");
  const data = join(o.out, "data");
  const run = join(o.out, "run");
  rmSync(run, { recursive: true, force: true });

  o.onStage("data: MNIST digits as webdataset shards");
  const { length: textLen, width: textDim } = presetNet(DIGITS_NET).text;
  for (const [split, limit] of [
    ["train", 8192],
    ["test", SAMPLES],
  ] as const) {
    makeDigits({
      out: join(data, "digits", split),
      split,
      limit,
      textLen,
      textDim,
      onShard: (done, total) => o.onProgress(done, total, `${split} digits`, 4096),
    });
  }

  const paths = [`data.path=${join(data, "digits/train")}`, `eval.data=${join(data, "digits/test")}`];
  const recipe = loadRecipe(join(recipes, "demo.yaml"), paths);
  o.onStage(`distil: rCM, ${recipe.recipe.train.steps} iterations from the shipped teacher`);
  const trained = await distill({
    recipe,
    out: run,
    device: o.device,
    threads: o.threads,
    resume: false,
    shouldStop: () => false,
    onEvent: (e) =>
      e.kind === "step" &&
      o.onProgress(
        e.step,
        e.steps,
        `${e.result.kind} ${Object.entries(e.result.stats)
          .map(([k, v]) => `${k} ${v.toPrecision(3)}`)
          .join(" ")}`,
        recipe.recipe.train.log_every,
      ),
  });

  o.onStage("sample and evaluate: 1, 2 and 4 steps, and the teacher's 50 x 2");
  const evaluation = join(o.out, "eval");
  const report = await evaluateRecipe({
    recipe,
    weights: run,
    kind: "ema",
    out: evaluation,
    device: o.device,
    threads: o.threads,
    samples: SAMPLES,
    steps: [],
    seed: 0,
    batch: 100,
    command: "rcm demo",
    reuseTeacher: null,
    onEvent: (e) => o.onProgress(e.done, e.total, `${e.row} steps`, SAMPLES),
  });

  o.onStage("export");
  const exported = join(o.out, "rcm-digits.safetensors");
  exportWeights({
    weights: run,
    kind: "ema",
    out: exported,
    dtype: "bf16",
    prefix: "",
    metadata: { recipe: recipe.recipe.name, recipe_hash: recipe.hash, steps: String(trained.steps) },
  });
  return {
    out: o.out, table: renderTable(report), report: join(evaluation, "report.html"), exported,
    pictures: [report.teacher, ...report.rows].map((r) => join(evaluation, `grid_${r.name}_${r.steps}.png`)),
    seconds: (performance.now() - began) / 1000,
    agreement: Object.fromEntries([report.teacher, ...report.rows].map((r) => [`${r.name}_${r.steps}`, r.agreement])),
  };
}
