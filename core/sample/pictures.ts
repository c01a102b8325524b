import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { gridSheet, pictures } from "../data/sheet.ts";
import { writeFileAtomic } from "../io/atomic.ts";
import { encodePng } from "../io/png.ts";
import { evaluationsOf } from "../networks/plan.ts";
import type { Device } from "../tensor.ts";
import { drawPrompts, type PromptHooks, type PromptJob } from "./prompts.ts";

export interface PictureJob extends PromptJob {
  /** Pictures per prompt. */
  each: number;
  out: string;
}

export interface PictureSummary {
  out: string;
  grid: string;
  files: string[];
  seconds: number;
  secondsPerSample: number;
  evaluations: number;
  peakBytes: number;
}

/** Draws pictures of prompts: `grid.png` (a column per prompt) and a PNG each. Picture i depends only on (seed, i). */
export async function runPictures(device: Device, job: PictureJob, hooks: PromptHooks): Promise<PictureSummary> {
  const { each, out } = job;
  const columns = job.prompts.length;
  const prompts = Array.from({ length: columns * each }, (_, i) => job.prompts[i % columns]);
  const set = await drawPrompts(device, { ...job, prompts }, hooks);
  const host = set.latents.toHost();
  mkdirSync(out, { recursive: true });
  const [, , , Y, X] = host.shape;
  const files = pictures(host).map((pixels, i) => {
    const path = join(out, `${String(i).padStart(6, "0")}.png`);
    writeFileAtomic(path, encodePng(pixels, X, Y, 1));
    return path;
  });
  const grid = join(out, "grid.png");
  writeFileAtomic(grid, gridSheet([host], columns));
  writeFileAtomic(join(out, "prompts.txt"), prompts.map((p) => `${p}\n`).join(""));
  const { seconds } = set;
  return {
    out,
    grid,
    files,
    seconds,
    secondsPerSample: seconds / prompts.length,
    evaluations: evaluationsOf(job.plan),
    peakBytes: device.memory().peak,
  };
}
