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
  OUTPUT_ARGS,
  PARTIAL_ARG,
  repeated,
  SET_ARG,
} from "./args.ts";
import { stopSignals } from "./signals.ts";
import { loading, progress, result, truncations } from "./ui.ts";

const args = {
  recipe: { type: "positional", required: true, description: "recipe file, for example runs/rcm/recipe.yaml" },
  weights: {
    type: "string",
    description: "student: run folder, checkpoint, .safetensors or .pth; absent: the teacher alone",
    valueHint: "PATH",
  },
  kind: { type: "string", default: "ema", description: "weights of a run: ema or student", valueHint: "KIND" },
  out: {
    type: "string",
    default: "eval",
    description: "folder for report.html, eval.json and grids",
    valueHint: "DIR",
  },
  samples: { type: "string", default: "0", description: "samples per row; 0: the recipe's", valueHint: "N" },
  steps: {
    type: "string",
    default: "",
    description: "student steps, for example 1,2,4; empty: the recipe's",
    valueHint: "LIST",
  },
  "reuse-teacher": {
    type: "string",
    description: "take the teacher row from an earlier eval.json measured in the same way",
    valueHint: "FILE",
  },
  seed: { type: "string", default: "0", description: "seed of the noise", valueHint: "N" },
  batch: { type: "string", default: "100", description: "samples per batch", valueHint: "N" },
  ...SET_ARG,
  ...PARTIAL_ARG,
  ...DEVICE_ARGS,
  ...OUTPUT_ARGS,
} as const;

export default defineCommand({
  meta: {
    name: "eval",
    description:
      "Measure quality and diversity per number of steps beside the teacher; writes a self-contained report.\n\n  rcm eval runs/rcm/recipe.yaml --weights runs/rcm --out runs/rcm/eval",
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
      kind: oneOf(a.kind, "kind", ["ema", "student"]),
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
      shouldStop: stop.asked,
    }).finally(() => {
      view.end();
      stop.restore();
    });
    result(
      a.json,
      { ...plain(report), truncated, report: join(a.out, "report.html") },
      `${renderTable(report)}\nreport ${join(a.out, "report.html")}`,
    );
  },
});
