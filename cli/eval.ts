import { defineCommand } from "citty";
import { join } from "node:path";
import { evaluateRecipe, plain } from "../core/eval/run.ts";
import { renderTable } from "../core/metrics/report.ts";
import { loadRecipe } from "../core/recipe/load.ts";
import {
  DEVICE_ARGS,
  deviceOf,
  expectKnown,
  integer,
  integers,
  oneOf,
  option,
  OUTPUT_ARGS,
  PARTIAL_ARG,
  repeated,
  SET_ARG,
  withExamples,
} from "./args.ts";
import { stopSignals } from "./signals.ts";
import { loading, progress, result, truncations } from "./ui.ts";
import { WEIGHT_KINDS } from "../core/models/layout.ts";

const args = {
  recipe: { type: "positional", required: true, description: "recipe file, for example runs/rcm/recipe.yaml" },
  weights: option("student: run folder, checkpoint, .safetensors or .pth; absent: the teacher alone", "PATH"),
  kind: option("weights of a run: ema or student", "KIND", "ema"),
  out: option("folder for report.html, eval.json and grids", "DIR", "eval"),
  samples: option("samples per row; 0: the recipe's", "N", "0"),
  steps: option("student steps, for example 1,2,4; empty: the recipe's", "LIST", ""),
  "reuse-teacher": option("take the teacher row from an earlier eval.json measured in the same way", "FILE"),
  seed: option("seed of the noise", "N", "0"),
  batch: option("samples per batch", "N", "100"),
  ...SET_ARG,
  ...PARTIAL_ARG,
  ...DEVICE_ARGS,
  ...OUTPUT_ARGS,
} as const;

export default defineCommand({
  meta: {
    name: "eval",
    description: withExamples(
      "Measure quality and diversity per number of steps, compared with the teacher; writes a self-contained report.",
      "rcm eval runs/rcm/recipe.yaml --weights runs/rcm --out runs/rcm/eval",
    ),
  },
  args,
  async run({ args: a, rawArgs }) {
    expectKnown(rawArgs, args);
    const view = progress(a.quiet);
    const recipe = loadRecipe(a.recipe, repeated(rawArgs, "set"));
    const stop = stopSignals();
    const { truncated, onTruncated } = truncations();
    const report = await evaluateRecipe({
      recipe,
      weights: a.weights ?? null,
      kind: oneOf(a.kind, "kind", WEIGHT_KINDS),
      load: loading(a["allow-partial"]),
      out: a.out,
      device: deviceOf(a.device),
      threads: integer(a.threads, "threads"),
      samples: integer(a.samples, "samples"),
      steps: integers(a.steps, "steps"),
      seed: integer(a.seed, "seed"),
      batch: integer(a.batch, "batch", 1),
      reuseTeacher: a["reuse-teacher"] ?? null,
      command: `rcm eval ${rawArgs.join(" ")}`,
      onTruncated,
      onEvent: (e) => view.update(e.done, e.total, `${e.row} steps`, 500),
      shouldStop: stop.requested,
    }).finally(() => {
      view.end();
      stop.restore();
    });
    const page = join(a.out, "report.html");
    result(a.json, { ...plain(report), truncated, report: page }, `${renderTable(report)}\nreport ${page}`);
  },
});
