import { defineCommand } from "citty";
import { benchStep } from "../core/bench/step.ts";
import { loadRecipe } from "../core/recipe/load.ts";
import { DEVICE_ARGS, deviceOf, expectKnown, integer, OUTPUT_ARGS, repeated, SET_ARG } from "./args.ts";
import { mebibytes, progress, result } from "./ui.ts";

const args = {
  recipe: { type: "positional", required: true, description: "recipe file; its weights and data are not read" },
  repeats: { type: "string", default: "8", description: "timed cycles after two of warm-up", valueHint: "N" },
  ...SET_ARG,
  ...DEVICE_ARGS,
  ...OUTPUT_ARGS,
} as const;

const step = defineCommand({
  meta: { name: "step", description: "Time training iterations on random data, against OpenBLAS' own matmul rate.\n\n  rcm bench step recipes/digits/rcm.yaml" },
  args,
  run({ args: a, rawArgs }) {
    expectKnown(rawArgs, args);
    const view = progress(a.quiet);
    const b = benchStep(loadRecipe(a.recipe, repeated(rawArgs, "set")), { device: deviceOf(a.device), threads: integer(a.threads, "threads"), repeats: integer(a.repeats, "repeats", 1), onEvent: (t) => view.update(Number(t.split("/")[0]), Number(t.split("/")[1]), "iterations", 10) });
    view.end();
    const row = (name: string, r: { ms: number; gflop: number; gflops: number } | null): string => (r ? `${name.padEnd(8)} ${r.ms.toFixed(0).padStart(6)} ms  ${r.gflop.toFixed(1).padStart(7)} GFLOP  ${r.gflops.toFixed(0).padStart(5)} GFLOP/s\n` : "");
    const ratio = b.ratio === null || b.openblas === null ? "OpenBLAS is not installed: no ratio" : `OpenBLAS 2048^3 on ${b.threads} threads ${(b.openblas / 1e9).toFixed(0)} GFLOP/s; the step runs at ${(100 * b.ratio).toFixed(0)} % of it`;
    result(a.json, b, `${b.recipe}: batch ${b.batch}, ${b.tokens} tokens, ${b.device} ${b.isa}, ${b.threads} threads\n${row("student", b.student)}${row("critic", b.critic)}whole    ${(b.rate / 1e9).toFixed(0)} GFLOP/s, peak memory ${mebibytes(b.peakBytes)}\n${ratio}`);
  },
});

export default defineCommand({ meta: { name: "bench", description: "Measure speed" }, subCommands: { step } });
