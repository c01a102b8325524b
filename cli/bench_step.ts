import { defineCommand, type ArgsDef } from "citty";
import { benchRcmStep, benchStudentStep } from "../core/bench/network.ts";
import { benchStep, type StepBench, type StepRow } from "../core/bench/step.ts";
import { loadRecipe } from "../core/recipe/load.ts";
import { deviceOf, expectKnown, integer, oneOf, option, repeated, SET_ARG, usage, withExamples } from "./args.ts";
import {
  againstMatmul,
  COMMON_ARGS,
  count,
  DETERMINISTIC_ARG,
  measure,
  MODEL_ARGS,
  networkSize,
  type Values,
} from "./bench_args.ts";
import { mebibytes, progress, result } from "./ui.ts";

const OBJECTIVES = "scm (in parts) or rcm (with the score regularizer, critic and every optimizer state)";

const args = {
  recipe: { type: "positional", required: false, description: "recipe file; its weights and data are not read" },
  ...SET_ARG,
  ...MODEL_ARGS,
  ...DETERMINISTIC_ARG,
  objective: option(`step of a model: ${OBJECTIVES}`, "KIND", "scm"),
  ...COMMON_ARGS,
  repeats: option("timed cycles of a recipe after two of warm-up (default 8), or samples of a model (default 20)", "N"),
} as const satisfies ArgsDef;

/** A training step of a model at a size given by flags. */
function modelStep(a: Values): void {
  const objective = oneOf(String(a.objective), "objective", ["scm", "rcm"]);
  const bench = objective === "scm" ? benchStudentStep : benchRcmStep;
  measure("step", a, (s) => bench(againstMatmul(s), networkSize(a, s)));
}

const row = (name: string, r: StepRow): string =>
  [
    name.padEnd(8),
    ` ${r.ms.toFixed(0).padStart(6)} ms`,
    `  ${r.gflop.toFixed(1).padStart(7)} GFLOP`,
    `  ${r.gflops.toFixed(0).padStart(5)} GFLOP/s`,
  ].join("");

function describe(b: StepBench): string {
  const lines = [
    `${b.recipe}: batch ${b.batch}, ${b.tokens} tokens, ${b.device} ${b.isa}, ${b.threads} threads`,
    ...Object.entries(b.turns).map(([role, r]) => row(role, r)),
    `whole    ${(b.rate / 1e9).toFixed(0)} GFLOP/s, peak memory ${mebibytes(b.peakBytes)}`,
  ];
  if (b.ratio === null || b.openblas === null) lines.push("OpenBLAS is not installed: no ratio");
  else {
    const openblas = `OpenBLAS 2048^3 on ${b.threads} threads ${(b.openblas / 1e9).toFixed(0)} GFLOP/s`;
    lines.push(`${openblas}; the step runs at ${(100 * b.ratio).toFixed(0)} % of it`);
  }
  if (b.recorded) {
    const { gpuMs, iterationMs } = b.recorded;
    lines.push(
      `CUDA graphs: ${gpuMs.toFixed(2)} of the ${iterationMs.toFixed(2)} ms of an average iteration on the GPU`,
    );
  }
  return lines.join("\n");
}

export default defineCommand({
  meta: {
    name: "step",
    description: withExamples(
      "Time training iterations on random data: of a recipe, compared with OpenBLAS' matmul rate, or of a model.",
      "rcm bench step recipes/digits/rcm.yaml",
      "rcm bench step --model wan-1.3b",
    ),
  },
  args,
  run({ args: a, rawArgs }) {
    expectKnown(rawArgs, args);
    if (a.model !== undefined && a.recipe === undefined) return modelStep(a);
    if (a.recipe === undefined || a.model !== undefined) throw usage("give either a recipe or --model");
    const sets = [...repeated(rawArgs, "set"), ...(a.deterministic ? [] : ["train.deterministic=false"])];
    const view = progress(a.quiet);
    const b = benchStep(loadRecipe(a.recipe, sets), {
      device: deviceOf(a.device),
      threads: integer(a.threads, "threads"),
      repeats: count(a, "repeats", 8),
      onIteration: (done, total) => view.update(done, total, "iterations", 10),
    });
    view.end();
    result(a.json, b, describe(b));
  },
});
