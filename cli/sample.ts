import { defineCommand } from "citty";
import { loadRecipe } from "../core/recipe/load.ts";
import type { PictureSummary } from "../core/sample/pictures.ts";
import { sampleRun } from "../core/sample/run.ts";
import type { SampleEvent, VideoSummary } from "../core/sample/videos.ts";
import {
  DEVICE_ARGS,
  expectKnown,
  flag,
  option,
  OUTPUT_ARGS,
  PARTIAL_ARG,
  repeated,
  SET_ARG,
  withExamples,
} from "./args.ts";
import { SAMPLER_ARGS, sampleOptions, VIDEO_ARGS } from "./sample_options.ts";
import { stopSignals } from "./signals.ts";
import { log, mebibytes, progress, rateOf, result, seconds, truncations, type Progress } from "./ui.ts";

const args = {
  recipe: {
    type: "positional",
    required: false,
    description: "recipe file, for example runs/rcm/recipe.yaml; without one everything is in the flags",
  },
  weights: option("run folder, checkpoint, .safetensors or .pth", "PATH"),
  teacher: flag("sample the recipe's guided teacher (or --weights as one)"),
  kind: option("weights of a run: ema or student", "KIND", "ema"),
  steps: option("steps; default 4, with --teacher that of the recipe or 50", "N", ""),
  prompt: option("a prompt, may be repeated; default: the recipe's sample.prompts", "TEXT"),
  prompts: option("file with a prompt a line", "FILE"),
  each: option("samples of each prompt", "N", "1"),
  out: option("folder for the samples and their contact sheet", "DIR", "samples"),
  seed: option("seed of the noise", "N", "0"),
  batch: option("samples at a time; does not change their noise; default 64 for pictures, 1 for videos", "N", ""),
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

function speedWords(s: VideoSummary): string[] {
  if (s.fpsWithoutVae === null) return [];
  const steps = s.stepSeconds.flat();
  const withVae = s.fps === null ? "" : `, ${rate(s.fps)} with it`;
  const each = steps.length === 0 ? "" : `, ${(steps.reduce((a, b) => a + b) / steps.length).toFixed(3)} s a step`;
  return [`${rate(s.fpsWithoutVae)} frames/s without the VAE${withVae}${each}`];
}

function videoWords(s: VideoSummary): string {
  const frames = `${s.frames} frames of ${s.width}x${s.height}`;
  const work = `${s.steps} steps (${s.evaluations} network evaluations)`;
  return [
    `${s.files.length} drawn, ${s.skipped} there already, in ${seconds(s.seconds)}: ${frames}, ${work}`,
    ...speedWords(s),
    ...s.stages.map(
      (r) => `  ${r.name.padEnd(18)} ${seconds(r.seconds).padStart(9)}  peak ${mebibytes(r.peakBytes)}`,
    ),
    s.sheet ? `sheet ${s.sheet}` : `in ${s.out}`,
  ].join("\n");
}

function pictureWords(s: PictureSummary): string {
  const each = `${(1000 * s.secondsPerSample).toFixed(1)} ms each, ${s.evaluations} network evaluations`;
  const cost = `${seconds(s.seconds)} (${each}), peak memory ${mebibytes(s.peakBytes)}`;
  return `${s.files.length} pictures in ${cost}\ngrid ${s.grid}`;
}

export default defineCommand({
  meta: {
    name: "sample",
    description: withExamples(
      "Draw pictures or videos in 1-8 steps.",
      "rcm sample runs/rcm/recipe.yaml --weights runs/rcm --steps 4 --prompt 'a handwritten seven' \\",
      "  --each 8 --out sevens",
      "rcm sample --weights rCM_Wan2.1_T2V_1.3B_480p.pt --text-encoder umt5.pth --tokenizer tokenizer.json \\",
      "  --vae Wan2.1_VAE.pth --prompt 'a cat on a skateboard' --out cat",
    ),
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
      const s = await sampleRun({ ...options, onTruncated, onEvent, shouldStop: stop.requested });
      view.end();
      result(a.json, { ...s, truncated }, "grid" in s ? pictureWords(s) : videoWords(s));
    } finally {
      view.end();
      stop.restore();
    }
  },
});
