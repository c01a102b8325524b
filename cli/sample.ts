import { defineCommand } from "citty";
import { RcmError } from "../core/error.ts";
import { loadRecipe } from "../core/recipe/load.ts";
import { sampleRun } from "../core/sample/run.ts";
import { DEVICE_ARGS, deviceOf, expectKnown, integer, oneOf, OUTPUT_ARGS, PARTIAL_ARG, repeated, SET_ARG } from "./args.ts";
import { givenVideoFlags, promptsOrRecipe, sampleVideo, VIDEO_ARGS } from "./sample_video.ts";
import { loading, mebibytes, progress, result, seconds, truncations } from "./ui.ts";

const args = {
  recipe: { type: "positional", required: false, description: "recipe file, for example runs/rcm/recipe.yaml; without one the flags say everything" },
  weights: { type: "string", description: "run folder, checkpoint, .safetensors or .pth", valueHint: "PATH" },
  teacher: { type: "boolean", default: false, description: "sample the recipe's guided teacher (or --weights as one)" },
  kind: { type: "string", default: "ema", description: "weights of a run: ema or student", valueHint: "KIND" },
  steps: { type: "string", default: "", description: "steps; default 4, the teacher's own for --teacher", valueHint: "N" },
  prompt: { type: "string", description: "a prompt, may be repeated; default: the recipe's sample.prompts", valueHint: "TEXT" },
  prompts: { type: "string", description: "file with a prompt a line", valueHint: "FILE" },
  each: { type: "string", default: "1", description: "samples of each prompt", valueHint: "N" },
  out: { type: "string", default: "samples", description: "folder for the samples and their contact sheet", valueHint: "DIR" },
  seed: { type: "string", default: "0", description: "seed of the noise", valueHint: "N" },
  batch: { type: "string", default: "", description: "samples at a time; does not change their noise; default 64 for pictures, 1 for videos", valueHint: "N" },
  ...VIDEO_ARGS,
  ...SET_ARG,
  ...PARTIAL_ARG,
  ...DEVICE_ARGS,
  ...OUTPUT_ARGS,
} as const;

export default defineCommand({
  meta: { name: "sample", description: "Draw pictures or videos in 1-8 steps.\n\n  rcm sample runs/rcm/recipe.yaml --weights runs/rcm --steps 4 --prompt 'a handwritten seven' --each 8 --out sevens\n  rcm sample --weights rCM_Wan2.1_T2V_1.3B_480p.pt --text-encoder umt5.pth --tokenizer tokenizer.json --vae Wan2.1_VAE.pth --prompt 'a cat on a skateboard' --out cat" },
  args,
  async run({ args: a, rawArgs }) {
    expectKnown(rawArgs, args);
    if (a.recipe === undefined) return sampleVideo(a, rawArgs, null);
    const recipe = loadRecipe(a.recipe, repeated(rawArgs, "set"));
    if (recipe.recipe.model.preset !== "wan-digits") return sampleVideo(a, rawArgs, recipe.recipe);
    const stray = givenVideoFlags(a);
    if (stray.length > 0) throw new RcmError("E_ARG", `${stray.join(" ")}: for Wan networks, and ${a.recipe} is of digits`, { op: "usage" });
    const role = a.teacher ? "teacher" : "student";
    if (!a.teacher && a.weights === undefined) throw new RcmError("E_ARG", "--weights names the student, or --teacher asks for the teacher", { op: "usage" });
    if (a.weights === undefined && !recipe.recipe.teacher) throw new RcmError("E_ARG", "this recipe has no teacher; give --weights", { op: "usage" });
    const steps = a.steps === "" ? (a.teacher ? recipe.recipe.sample.teacher_steps : 4) : integer(a.steps, "steps", 1);
    const most = recipe.recipe.sample.mid_times.length + 1;
    if (role === "student" && steps > most) throw new RcmError("E_ARG", `--steps ${steps}: sample.mid_times has times for at most ${most} steps`, { op: "usage" });
    const prompts = promptsOrRecipe(a, rawArgs, recipe.recipe);
    if (prompts.length === 0) throw new RcmError("E_ARG", "no prompt: give --prompt, --prompts or sample.prompts", { op: "usage" });
    const view = progress(a.quiet);
    const { truncated, onTruncated } = truncations();
    const s = await sampleRun({
      recipe, weights: a.weights ?? null, kind: oneOf(a.kind, "kind", ["ema", "student"]), load: loading(a["allow-partial"]), role, steps, prompts, each: integer(a.each, "each", 1), out: a.out,
      seed: integer(a.seed, "seed"), batch: a.batch === "" ? 64 : integer(a.batch, "batch", 1), device: deviceOf(a.device), threads: integer(a.threads, "threads"),
      onTruncated, onEvent: (done, total) => view.update(done, total, "pictures"),
    });
    view.end();
    result(a.json, { ...s, truncated }, `${s.files.length} pictures in ${seconds(s.seconds)} (${(1000 * s.secondsPerSample).toFixed(1)} ms each, ${s.evaluations} network evaluations), peak memory ${mebibytes(s.peakBytes)}\ngrid ${s.grid}`);
  },
});
