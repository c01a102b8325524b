import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { encodePng } from "../io/png.ts";
import { writeFileAtomic } from "../io/atomic.ts";
import type { LoadedRecipe } from "../recipe/load.ts";
import { Device } from "../tensor.ts";
import type { OnTruncated } from "../text/embedder.ts";
import { createNetwork, loadWeights, wantsSecondTime } from "../networks/build.ts";
import { evaluationsOf, samplePrompts } from "./batches.ts";
import { gridSheet, pictures } from "../data/sheet.ts";
import { hostValues } from "../dtype.ts";
import { RcmError } from "../error.ts";
import type { LoadOptions } from "../weights/fit.ts";

export interface SampleOptions {
  recipe: LoadedRecipe;
  /** Null with role "teacher": the recipe's own teacher. */
  weights: string | null;
  kind: "ema" | "student";
  /** How weights are loaded. */
  load?: LoadOptions;
  role: "student" | "teacher";
  steps: number;
  prompts: string[];
  /** Pictures of each prompt. */
  each: number;
  out: string;
  seed: number;
  batch: number;
  device: "auto" | "cpu" | "cuda";
  threads?: number;
  onEvent?: (done: number, total: number) => void;
  onTruncated?: OnTruncated;
}

export interface SampleSummary {
  out: string;
  grid: string;
  files: string[];
  seconds: number;
  secondsPerSample: number;
  evaluations: number;
  peakBytes: number;
}

/** Draws pictures of prompts: `grid.png` (a column per prompt) and one PNG each. Picture i depends only on (seed, i). */
export async function sampleRun(o: SampleOptions): Promise<SampleSummary> {
  const { recipe } = o.recipe;
  using device = Device.open({ device: o.device, threads: o.threads });
  const model = createNetwork(device, recipe, { trainable: false, secondTime: o.role === "student" && wantsSecondTime(recipe) });
  const source = o.weights ?? (recipe.teacher?.weights as string);
  loadWeights(model, source, source, { kind: o.kind, ...o.load });
  const prompts = Array.from({ length: o.prompts.length * o.each }, (_, i) => o.prompts[i % o.prompts.length]);
  const job = { model, role: o.role, steps: o.steps } as const;
  const set = await samplePrompts(device, job, recipe, prompts, o.seed, o.batch, (done) => o.onEvent?.(done, prompts.length), o.onTruncated);
  const host = set.latents.toHost();
  if (hostValues(host).some((v) => !Number.isFinite(v))) throw new RcmError("E_NONFINITE", "the samples hold values that are not finite", { op: "sample" });
  mkdirSync(o.out, { recursive: true });
  const [, , , Y, X] = host.shape;
  const files = pictures(host).map((pixels, i) => {
    const path = join(o.out, `${String(i).padStart(6, "0")}.png`);
    writeFileAtomic(path, encodePng(pixels, X, Y, 1));
    return path;
  });
  const grid = join(o.out, "grid.png");
  writeFileAtomic(grid, gridSheet([host], o.prompts.length));
  writeFileAtomic(join(o.out, "prompts.txt"), prompts.map((p) => `${p}\n`).join(""));
  return { out: o.out, grid, files, seconds: set.seconds, secondsPerSample: set.seconds / prompts.length, evaluations: evaluationsOf(job, recipe), peakBytes: device.memory().peak };
}
