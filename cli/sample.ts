import { defineCommand } from "citty";
import { readFileSync } from "node:fs";
import { RcmError } from "../core/error.ts";
import { loadRecipe } from "../core/recipe/load.ts";
import { sampleRun } from "../core/sample/run.ts";
import { DEVICE_ARGS, deviceOf, expectKnown, integer, oneOf, OUTPUT_ARGS, PARTIAL_ARG, repeated, SET_ARG } from "./args.ts";
import { loading, mebibytes, progress, result, seconds } from "./ui.ts";

const args = {
  recipe: { type: "positional", required: true, description: "recipe file, for example runs/rcm/recipe.yaml" },
  weights: { type: "string", description: "student: run folder, checkpoint, .safetensors or .pth", valueHint: "PATH" },
  teacher: { type: "boolean", default: false, description: "sample the recipe's guided teacher (or --weights as one)" },
  kind: { type: "string", default: "ema", description: "weights of a run: ema or student", valueHint: "KIND" },
  steps: { type: "string", default: "", description: "steps; default 4, the teacher's own for --teacher", valueHint: "N" },
  prompt: { type: "string", description: "a prompt, may be repeated; default: the recipe's sample.prompts", valueHint: "TEXT" },
  prompts: { type: "string", description: "file with a prompt a line", valueHint: "FILE" },
  each: { type: "string", default: "1", description: "pictures of each prompt", valueHint: "N" },
  out: { type: "string", default: "samples", description: "folder for grid.png and single PNGs", valueHint: "DIR" },
  seed: { type: "string", default: "0", description: "seed of the noise", valueHint: "N" },
  batch: { type: "string", default: "64", description: "pictures per batch; does not change the pictures' noise", valueHint: "N" },
  ...SET_ARG,
  ...PARTIAL_ARG,
  ...DEVICE_ARGS,
  ...OUTPUT_ARGS,
} as const;

export default defineCommand({
  meta: { name: "sample", description: "Draw pictures in 1-8 steps.\n\n  rcm sample runs/rcm/recipe.yaml --weights runs/rcm --steps 4 --prompt 'a handwritten seven' --each 8 --out sevens" },
  args,
  async run({ args: a, rawArgs }) {
    expectKnown(rawArgs, args);
    const recipe = loadRecipe(a.recipe, repeated(rawArgs, "set"));
    const role = a.teacher ? "teacher" : "student";
    if (!a.teacher && a.weights === undefined) throw new RcmError("E_ARG", "--weights names the student, or --teacher asks for the teacher", { op: "usage" });
    if (a.weights === undefined && !recipe.recipe.teacher) throw new RcmError("E_ARG", "this recipe has no teacher; give --weights", { op: "usage" });
    const steps = a.steps === "" ? (a.teacher ? recipe.recipe.sample.teacher_steps : 4) : integer(a.steps, "steps", 1);
    const most = recipe.recipe.sample.mid_times.length + 1;
    if (role === "student" && steps > most) throw new RcmError("E_ARG", `--steps ${steps}: sample.mid_times has times for at most ${most} steps`, { op: "usage" });
    const listed = a.prompts === undefined ? [] : readFileSync(a.prompts, "utf8").split("\n").filter((l) => l.trim() !== "");
    const given = [...repeated(rawArgs, "prompt"), ...listed];
    const prompts = given.length > 0 ? given : (recipe.recipe.sample.prompts ?? []);
    if (prompts.length === 0) throw new RcmError("E_ARG", "no prompt: give --prompt, --prompts or sample.prompts", { op: "usage" });
    const view = progress(a.quiet);
    const s = await sampleRun({
      recipe, weights: a.weights ?? null, kind: oneOf(a.kind, "kind", ["ema", "student"]), load: loading(a["allow-partial"]), role, steps, prompts, each: integer(a.each, "each", 1), out: a.out,
      seed: integer(a.seed, "seed"), batch: integer(a.batch, "batch", 1), device: deviceOf(a.device), threads: integer(a.threads, "threads"),
      onEvent: (done, total) => view.update(done, total, "pictures"),
    });
    view.end();
    result(a.json, s, `${s.files.length} pictures in ${seconds(s.seconds)} (${(1000 * s.secondsPerSample).toFixed(1)} ms each, ${s.evaluations} network evaluations), peak memory ${mebibytes(s.peakBytes)}\ngrid ${s.grid}`);
  },
});
