import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";

const NAME = /^checkpoint_(\d{9})\.safetensors$/;

export const checkpointPath = (folder: string, step: number): string =>
  join(folder, `checkpoint_${String(step).padStart(9, "0")}.safetensors`);

/** Complete checkpoints of a run, oldest first. */
export function listCheckpoints(folder: string): { step: number; path: string }[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .map((f) => ({ match: NAME.exec(f), f }))
    .filter(({ match }) => match !== null)
    .map(({ match, f }) => ({ step: Number(match?.[1]), path: join(folder, f) }))
    .sort((a, b) => a.step - b.step);
}
