import { defineCommand } from "citty";
import { basename } from "node:path";
import { loadRecipe } from "../core/recipe/load.ts";
import { distill, type TrainEvent } from "../core/train/run.ts";
import { planRun } from "../core/train/plan.ts";
import {
  byteSize,
  DEVICE_ARGS,
  deviceOf,
  expectKnown,
  flag,
  integer,
  option,
  OUTPUT_ARGS,
  PARTIAL_ARG,
  repeated,
  SET_ARG,
  usage,
  withExamples,
} from "./args.ts";
import { EXIT_HELP } from "./exit.ts";
import { showPlan } from "./distill_plan.ts";
import { stopSignals } from "./signals.ts";
import { loading, log, mebibytes, progress, rateOf, result, seconds, truncations, type Progress } from "./ui.ts";

const args = {
  recipe: { type: "positional", required: true, description: "recipe file (YAML)" },
  out: option("run folder; default runs/<recipe name>", "DIR"),
  resume: flag("continue from the newest checkpoint in --out, if any"),
  "dry-run": flag("check recipe, checkpoints and data; predict memory, disk and work; exit 3 when the run would fail"),
  memory: option("with --dry-run: memory of the card, for example 80GiB; default: as nvidia-smi reports", "SIZE"),
  seed: option("same as --set train.seed=N", "N"),
  ...SET_ARG,
  ...PARTIAL_ARG,
  ...DEVICE_ARGS,
  ...OUTPUT_ARGS,
} as const;

export default defineCommand({
  meta: {
    name: "distill",
    description: [
      withExamples(
        "Train a recipe: teacher, rCM, sCM, dCM, DMD or MeanFlow.",
        "rcm distill recipes/digits/rcm.yaml --out runs/rcm",
        "rcm distill recipes/digits/rcm.yaml --out runs/rcm --resume   # in a batch script: requeue on exit 75",
        "rcm distill recipes/wan2.1/t2v-1.3b-480p.yaml --dry-run --memory 80GiB",
      ),
      EXIT_HELP,
    ].join("\n\n"),
  },
  args,
  async run({ args: a, rawArgs }) {
    expectKnown(rawArgs, args);
    const sets = [
      ...repeated(rawArgs, "set"),
      ...(a.seed === undefined ? [] : [`train.seed=${integer(a.seed, "seed")}`]),
    ];
    const recipe = loadRecipe(a.recipe, sets);
    const out = a.out ?? `runs/${recipe.recipe.name}`;
    if (a["dry-run"]) {
      const memory = a.memory === undefined ? null : byteSize(a.memory, "memory");
      return showPlan(planRun({ recipe: recipe.recipe, out, device: deviceOf(a.device), memory }), a.json);
    }
    if (a.memory !== undefined) throw usage("--memory goes with --dry-run");
    const stop = stopSignals();
    const view = progress(a.quiet);
    try {
      const { truncated, onTruncated } = truncations();
      const summary = await distill({
        recipe,
        out,
        device: deviceOf(a.device),
        threads: integer(a.threads, "threads"),
        resume: a.resume,
        load: loading(a["allow-partial"]),
        shouldStop: stop.requested,
        onTruncated,
        onEvent: (e) => show(view, e, recipe.recipe.train.log_every),
      });
      view.end();
      const cost = `${seconds(summary.seconds)}, peak memory ${mebibytes(summary.peakBytes)}`;
      const text = `${summary.steps} steps in ${cost}\ncheckpoint ${summary.checkpoint}`;
      result(a.json, { ...summary, truncated }, text);
    } finally {
      view.end();
      stop.restore();
    }
  },
});

let rate = 0;

const megabytes = (bytes: number): number => Math.ceil(bytes / 1e6);

function stepWords({ result: r, steps, step, secondsPerStep }: Extract<TrainEvent, { kind: "step" }>): string {
  rate = rate === 0 ? secondsPerStep : 0.97 * rate + 0.03 * secondsPerStep;
  const losses = Object.entries(r.stats)
    .filter(([name]) => name.endsWith("_loss"))
    .map(([name, value]) => `${name.replace("_loss", "")} ${value.toPrecision(4)}`)
    .join(" ");
  const speed = `${(1 / rate).toFixed(2)} it/s, ${seconds((steps - step) * rate)} left`;
  const dropped = r.skipped > 0 ? `, ${r.skipped} samples dropped` : "";
  return `${r.kind} ${losses} |g| ${r.gradNorm.toPrecision(3)} ${speed}${dropped}`;
}

function show(view: Progress, e: TrainEvent, every: number): void {
  if (e.kind === "start") {
    const where = `${e.resumed ? "resumed at" : "from"} step ${e.step} of ${e.steps}`;
    view.line(`${where}, ${e.parameters.toLocaleString("en")} parameters, ${e.device}`);
  } else if (e.kind === "step") view.update(e.step, e.steps, stepWords(e), every);
  else if (e.kind === "load") {
    const text = `MB of weights, ${rateOf(e.done, e.seconds)}`;
    view.update(megabytes(e.done), megabytes(e.total), text, Number.POSITIVE_INFINITY);
  } else if (e.kind === "warning") log.warn(e.message);
  else if (e.kind === "sample") view.line(`samples ${e.path}`);
  else if (e.kind === "checkpoint") view.line(`checkpoint ${basename(e.path)}`);
}
