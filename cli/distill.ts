import { defineCommand } from "citty";
import { basename } from "node:path";
import { RcmError } from "../core/error.ts";
import { loadRecipe } from "../core/recipe/load.ts";
import { distill, type TrainEvent } from "../core/train/run.ts";
import { planRun } from "../core/train/plan.ts";
import {
  byteSize,
  DEVICE_ARGS,
  deviceOf,
  expectKnown,
  integer,
  OUTPUT_ARGS,
  PARTIAL_ARG,
  repeated,
  SET_ARG,
} from "./args.ts";
import { EXIT_HELP } from "./exit.ts";
import { showPlan } from "./distill_plan.ts";
import { stopSignals } from "./signals.ts";
import { loading, log, mebibytes, progress, rateOf, result, seconds, truncations, type Progress } from "./ui.ts";

const args = {
  recipe: { type: "positional", required: true, description: "recipe file (YAML)" },
  out: { type: "string", description: "run folder; default runs/<recipe name>", valueHint: "DIR" },
  resume: {
    type: "boolean",
    default: false,
    description: "go on from the newest checkpoint in --out, if there is one",
  },
  "dry-run": {
    type: "boolean",
    default: false,
    description:
      "check recipe, checkpoints and data, predict memory, disk and work, and stop; exit 3 when the run would fail",
  },
  memory: {
    type: "string",
    description: "with --dry-run: memory of the card, for example 80GiB; default: what nvidia-smi says",
    valueHint: "SIZE",
  },
  seed: { type: "string", description: "same as --set train.seed=N", valueHint: "N" },
  ...SET_ARG,
  ...PARTIAL_ARG,
  ...DEVICE_ARGS,
  ...OUTPUT_ARGS,
} as const;

export default defineCommand({
  meta: {
    name: "distill",
    description: `Train a recipe: teacher, rCM, sCM, dCM, DMD or MeanFlow.\n\n  rcm distill recipes/digits/rcm.yaml --out runs/rcm\n  rcm distill recipes/digits/rcm.yaml --out runs/rcm --resume   # in a batch script: requeue on exit 75\n  rcm distill recipes/wan2.1/t2v-1.3b-480p.yaml --dry-run --memory 80GiB\n\n${EXIT_HELP}`,
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
    if (a["dry-run"])
      return showPlan(
        planRun({
          recipe: recipe.recipe,
          out,
          device: deviceOf(a.device),
          memory: a.memory === undefined ? null : byteSize(a.memory, "memory"),
        }),
        a.json,
      );
    if (a.memory !== undefined) throw new RcmError("E_ARG", "--memory goes with --dry-run", { op: "usage" });
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
        shouldStop: stop.asked,
        onTruncated,
        onEvent: (e) => show(view, e, recipe.recipe.train.log_every),
      });
      view.end();
      result(
        a.json,
        { ...summary, truncated },
        `${summary.steps} steps in ${seconds(summary.seconds)}, peak memory ${mebibytes(summary.peakBytes)}\ncheckpoint ${summary.checkpoint}`,
      );
    } finally {
      view.end();
      stop.restore();
    }
  },
});

let rate = 0;

function show(view: Progress, e: TrainEvent, every: number): void {
  if (e.kind === "start")
    view.line(
      `${e.resumed ? "resumed at" : "from"} step ${e.step} of ${e.steps}, ${e.parameters.toLocaleString("en")} parameters, ${e.device}`,
    );
  else if (e.kind === "step") {
    rate = rate === 0 ? e.secondsPerStep : 0.97 * rate + 0.03 * e.secondsPerStep;
    const losses = Object.entries(e.result.stats)
      .filter(([k]) => k.endsWith("_loss"))
      .map(([k, v]) => `${k.replace("_loss", "")} ${v.toPrecision(4)}`)
      .join(" ");
    const left = (e.steps - e.step) * rate;
    view.update(
      e.step,
      e.steps,
      `${e.result.kind} ${losses} |g| ${e.result.gradNorm.toPrecision(3)} ${(1 / rate).toFixed(2)} it/s, ${seconds(left)} left${e.result.skipped > 0 ? `, ${e.result.skipped} samples dropped` : ""}`,
      every,
    );
  } else if (e.kind === "load")
    view.update(
      Math.ceil(e.done / 1e6),
      Math.ceil(e.total / 1e6),
      `MB of weights, ${rateOf(e.done, e.seconds)}`,
      Number.POSITIVE_INFINITY,
    );
  else if (e.kind === "warning") log.warn(e.message);
  else if (e.kind === "sample") view.line(`samples ${e.path}`);
  else if (e.kind === "checkpoint") view.line(`checkpoint ${basename(e.path)}`);
}
