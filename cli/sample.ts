import { defineCommand } from "citty";
import { loadRecipe } from "../core/recipe/load.ts";
import type { PictureSummary } from "../core/sample/pictures.ts";
import { sampleRun } from "../core/sample/run.ts";
import type { SampleEvent, VideoSummary } from "../core/sample/videos.ts";
import { DEVICE_ARGS, expectKnown, OUTPUT_ARGS, PARTIAL_ARG, repeated, SET_ARG } from "./args.ts";
import { SAMPLER_ARGS, sampleOptions, VIDEO_ARGS } from "./sample_options.ts";
import { stopSignals } from "./signals.ts";
import { log, mebibytes, progress, rateOf, result, seconds, truncations, type Progress } from "./ui.ts";

const args = {
  recipe: {
    type: "positional",
    required: false,
    description: "recipe file, for example runs/rcm/recipe.yaml; without one the flags say everything",
  },
  weights: { type: "string", description: "run folder, checkpoint, .safetensors or .pth", valueHint: "PATH" },
  teacher: { type: "boolean", default: false, description: "sample the recipe's guided teacher (or --weights as one)" },
  kind: { type: "string", default: "ema", description: "weights of a run: ema or student", valueHint: "KIND" },
  steps: {
    type: "string",
    default: "",
    description: "steps; default 4, the teacher's own for --teacher",
    valueHint: "N",
  },
  prompt: {
    type: "string",
    description: "a prompt, may be repeated; default: the recipe's sample.prompts",
    valueHint: "TEXT",
  },
  prompts: { type: "string", description: "file with a prompt a line", valueHint: "FILE" },
  each: { type: "string", default: "1", description: "samples of each prompt", valueHint: "N" },
  out: {
    type: "string",
    default: "samples",
    description: "folder for the samples and their contact sheet",
    valueHint: "DIR",
  },
  seed: { type: "string", default: "0", description: "seed of the noise", valueHint: "N" },
  batch: {
    type: "string",
    default: "",
    description: "samples at a time; does not change their noise; default 64 for pictures, 1 for videos",
    valueHint: "N",
  },
  ...SAMPLER_ARGS,
  ...VIDEO_ARGS,
  ...SET_ARG,
  ...PARTIAL_ARG,
  ...DEVICE_ARGS,
  ...OUTPUT_ARGS,
} as const;

function show(view: Progress, e: SampleEvent): void {
  if (e.kind === "stage") view.line(e.text);
  else if (e.kind === "load")
    view.update(
      e.done === e.total ? Math.ceil(e.total / 1e6) : Math.floor(e.done / 1e6),
      Math.ceil(e.total / 1e6),
      `MB of weights, ${rateOf(e.done, e.seconds)}`,
      Number.POSITIVE_INFINITY,
    );
  else if (e.kind === "step") view.update(e.done, e.total, `step ${e.step}/${e.steps}`, e.total + 1);
  else if (e.kind === "item") view.update(e.done, e.total, e.file);
}

const rate = (fps: number | null): string => (fps === null ? "" : fps.toFixed(2));

function videoWords(s: VideoSummary): string {
  const stages = s.stages.map(
    (r) => `  ${r.name.padEnd(18)} ${seconds(r.seconds).padStart(9)}  peak ${mebibytes(r.peakBytes)}`,
  );
  const steps = s.stepSeconds.flat();
  const each = steps.length === 0 ? "" : `, ${(steps.reduce((a, b) => a + b) / steps.length).toFixed(3)} s a step`;
  const fps =
    s.fpsWithoutVae === null
      ? ""
      : `\n${rate(s.fpsWithoutVae)} frames/s without the VAE${s.fps === null ? "" : `, ${rate(s.fps)} with it`}${each}`;
  return `${s.files.length} drawn, ${s.skipped} there already, in ${seconds(s.seconds)}: ${s.frames} frames of ${s.width}x${s.height}, ${s.steps} steps (${s.evaluations} network evaluations)${fps}\n${stages.join("\n")}\n${s.sheet ? `sheet ${s.sheet}` : `in ${s.out}`}`;
}

const pictureWords = (s: PictureSummary): string =>
  `${s.files.length} pictures in ${seconds(s.seconds)} (${(1000 * s.secondsPerSample).toFixed(1)} ms each, ${s.evaluations} network evaluations), peak memory ${mebibytes(s.peakBytes)}\ngrid ${s.grid}`;

export default defineCommand({
  meta: {
    name: "sample",
    description:
      "Draw pictures or videos in 1-8 steps.\n\n  rcm sample runs/rcm/recipe.yaml --weights runs/rcm --steps 4 --prompt 'a handwritten seven' --each 8 --out sevens\n  rcm sample --weights rCM_Wan2.1_T2V_1.3B_480p.pt --text-encoder umt5.pth --tokenizer tokenizer.json --vae Wan2.1_VAE.pth --prompt 'a cat on a skateboard' --out cat",
  },
  args,
  async run({ args: a, rawArgs }) {
    expectKnown(rawArgs, args);
    const recipe = a.recipe === undefined ? null : loadRecipe(a.recipe, repeated(rawArgs, "set")).recipe;
    const options = sampleOptions(a, rawArgs, recipe);
    const view = progress(a.quiet);
    const stop = stopSignals();
    try {
      const { truncated, onTruncated } = truncations();
      const onEvent = (e: SampleEvent): void => (e.kind === "warning" ? log.warn(e.message) : show(view, e));
      const s = await sampleRun({ ...options, onTruncated, onEvent, shouldStop: stop.asked });
      view.end();
      result(a.json, { ...s, truncated }, "grid" in s ? pictureWords(s) : videoWords(s));
    } finally {
      view.end();
      stop.restore();
    }
  },
});
