import { spawnSync } from "node:child_process";
import { existsSync, statfsSync } from "node:fs";
import { totalmem } from "node:os";
import { dirname } from "node:path";
import { numel } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { hasNonfinite } from "../data/inspect.ts";
import { VAES } from "../models/families.ts";
import { storedNegative } from "../text/open.ts";
import { decode, indexShard, listShards } from "../io/webdataset.ts";
import { withFile } from "../io/tar.ts";
import { latentShape, type Recipe } from "../recipe/schema.ts";
import { CHECKPOINT_MODES, type CheckpointMode } from "../tape.ts";
import { describeFit, fitOf } from "../weights/fit.ts";
import { openNetwork } from "../weights/resolve.ts";
import { vaeIn } from "../weights/vae.ts";
import { recipeNet, wantsSecondTime } from "../networks/build.ts";
import { rehearse, type Rehearsal } from "./rehearsal.ts";
import type { DeviceName } from "../tensor.ts";
import { gibibytes as gib } from "../units.ts";

export interface CheckedWeights {
  role: string;
  path: string;
  format: string;
  layout: string;
  tensors: number;
  bytes: number;
}

export interface CheckedData {
  path: string;
  shards: number;
  /** Samples of the first shard. */
  firstShard: number;
  latent: string;
  embed: string;
}

export interface RunPlan {
  recipe: string;
  weights: CheckedWeights[];
  data: CheckedData | null;
  memory: {
    backend: "cpu" | "cuda";
    items: { name: string; dtype: string; bytes: number }[];
    /** Memory of the largest iteration on top of the items, and which one it is. */
    activations: { checkpoint: CheckpointMode; turn: string; bytes: number };
    /** Assumed memory of driver and libraries, which the dry run does not count. */
    overhead: number;
    total: number;
    /** Total with the other checkpoint modes. */
    byCheckpoint: Record<CheckpointMode, number>;
    budget: number | null;
    budgetSource: string;
    fits: boolean | null;
  };
  disk: { checkpoint: number; kept: number; most: number; free: number; fits: boolean };
  compute: {
    parameters: number;
    tokens: number;
    batchTokens: number;
    flopPerStep: number;
    turns: Rehearsal["turns"];
    run: number;
  };
  problems: string[];
  ok: boolean;
}

/** CUDA context, kernels, cuBLASLt workspace and fragmentation. */
const CUDA_OVERHEAD = 1.5 * 2 ** 30;

export interface PlanOptions {
  recipe: Recipe;
  out: string;
  device: DeviceName;
  /** Memory of the card in bytes; null: read from nvidia-smi. */
  memory: number | null;
}

/** Checks a run's inputs and predicts memory, disk and compute without a device; allocates and writes nothing. */
export function planRun({ recipe, out, device, memory }: PlanOptions): RunPlan {
  const problems: string[] = [];
  const attempt = <T>(what: string, body: () => T): T | null => {
    try {
      return body();
    } catch (error) {
      if (!(error instanceof RcmError)) throw error;
      problems.push(`${what}: ${error.message}`);
      return null;
    }
  };
  const spec = recipeNet(recipe);
  const { teacher, model, text } = recipe;
  const weights: CheckedWeights[] = [];
  const checkWeights = (role: string, path: string): void => {
    const { family, config } = recipeNet(recipe, role === "student" && wantsSecondTime(recipe));
    const found = attempt(role, () => openNetwork(path));
    if (!found) return;
    const { checkpoint, layout, tensors } = found;
    const problem = describeFit(fitOf({ specs: family.params(config) }, tensors, family.optional));
    if (problem !== "") problems.push(`${role}: ${checkpoint.path} does not fit the network: ${problem}`);
    weights.push({
      role,
      path: checkpoint.path,
      format: checkpoint.format,
      layout: layout.name,
      tensors: tensors.size,
      bytes: [...tensors.values()].reduce((n, t) => n + t.bytes, 0),
    });
  };
  if (teacher) checkWeights("teacher", teacher.weights);
  if (model.init !== "random" && model.init !== "teacher") checkWeights("student", model.init);
  attempt("teacher.negative_embed", () => storedNegative(recipe, spec.text));
  const vaePath = recipe.data.vae_round_trip;
  const vae = vaePath === null
    ? null
    : attempt("data.vae_round_trip", () => vaeIn(vaePath, VAES[spec.latent.vae ?? ""]));
  for (const [key, path] of Object.entries({ "text.encoder": text?.encoder, "text.tokenizer": text?.tokenizer })) {
    if (path && !existsSync(path)) problems.push(`${key}: ${path} does not exist`);
  }
  const data = attempt("data", () => checkData(recipe, spec.text.length, spec.text.width));

  const budget = cardMemory(device, memory);
  const backend = device === "cpu" || (device === "auto" && budget.card === null && memory === null) ? "cpu" : "cuda";
  const rehearsal = rehearse(recipe, backend, { vae });
  const overhead = backend === "cuda" ? CUDA_OVERHEAD : 0;
  const rehearsalWith = (mode: CheckpointMode): Rehearsal =>
    mode === model.checkpoint ? rehearsal : rehearse(recipe, backend, { checkpoint: mode, vae });
  const byCheckpoint = Object.fromEntries(
    CHECKPOINT_MODES.map((mode) => [mode, rehearsalWith(mode).peakBytes + overhead]),
  ) as Record<CheckpointMode, number>;
  const largest = rehearsal.turns.reduce((a, b) => (b.bytes > a.bytes ? b : a));
  const total = rehearsal.peakBytes + overhead;
  const bytes = memory ?? budget.card ?? (backend === "cpu" ? totalmem() : null);
  const budgetSource = (): string => {
    if (memory !== null) return "--memory";
    if (budget.card !== null) return budget.name;
    return backend === "cpu" ? "this machine" : "no card seen; give --memory";
  };
  const fits = bytes === null ? null : total <= bytes;
  if (fits === false) {
    const hint = lighterMode(byCheckpoint, bytes as number);
    problems.push(`memory: ${gib(total)} are wanted, ${gib(bytes as number)} are there${hint}`);
  }

  const { train } = recipe;
  const most = (train.keep_checkpoints + 1) * rehearsal.checkpointBytes;
  const free = freeDisk(out);
  if (most > free) {
    const advice = "lower train.keep_checkpoints or give another --out";
    problems.push(`disk: up to ${gib(most)} of checkpoints, ${gib(free)} free at ${out}; ${advice}`);
  }
  return {
    recipe: recipe.name,
    weights,
    data,
    memory: {
      backend,
      items: rehearsal.resident,
      activations: { checkpoint: model.checkpoint, turn: largest.name, bytes: largest.bytes },
      overhead,
      total,
      byCheckpoint,
      budget: bytes,
      budgetSource: budgetSource(),
      fits,
    },
    disk: { checkpoint: rehearsal.checkpointBytes, kept: train.keep_checkpoints, most, free, fits: most <= free },
    compute: {
      parameters: rehearsal.parameters,
      tokens: rehearsal.tokens,
      batchTokens: rehearsal.tokens * train.batch * train.accumulate,
      flopPerStep: rehearsal.flopPerStep,
      turns: rehearsal.turns,
      run: rehearsal.flopPerStep * train.steps,
    },
    problems,
    ok: problems.length === 0,
  };
}


/** Names the fastest checkpoint mode that fits, for the message that the recipe's mode does not. */
function lighterMode(by: Record<CheckpointMode, number>, bytes: number): string {
  const fitting = CHECKPOINT_MODES.filter((mode) => by[mode] <= bytes).sort((a, b) => by[b] - by[a])[0];
  return fitting
    ? `; model.checkpoint: ${fitting} needs ${gib(by[fitting])}`
    : "; no checkpoint mode fits: take a larger card, or more of them";
}

/** Memory of the first card from nvidia-smi, which allocates none of it. */
function cardMemory(device: PlanOptions["device"], given: number | null): { card: number | null; name: string } {
  if (device === "cpu" || given !== null) return { card: null, name: "" };
  const query = ["--query-gpu=memory.total,name", "--format=csv,noheader,nounits"];
  const r = spawnSync("nvidia-smi", query, { encoding: "utf8", timeout: 10_000 });
  const match = r.status === 0 ? /^(\d+), (.+)$/m.exec(r.stdout) : null;
  return match ? { card: Number(match[1]) * 2 ** 20, name: match[2].trim() } : { card: null, name: "" };
}

/** Free bytes on the disk of a folder that may not exist yet. */
function freeDisk(out: string): number {
  let folder = out;
  while (!existsSync(folder) && dirname(folder) !== folder) folder = dirname(folder);
  const disk = statfsSync(folder);
  return disk.bavail * disk.bsize;
}

/** Reads the first sample of the first shard and compares it with the recipe. Throws: E_IO, E_FORMAT, E_SHAPE. */
function checkData(recipe: Recipe, textLen: number, textDim: number): CheckedData {
  const shards = listShards(recipe.data.path);
  const entries = indexShard(shards[0]);
  if (entries.length === 0) throw new RcmError("E_FORMAT", `${shards[0]} holds no samples`, { op: "data" });
  const { latent, embed, key } = withFile(shards[0], (fd) => decode(fd, entries[0]));
  const expectShape = (what: string, got: number[], want: readonly number[]): void => {
    if (numel(got) === numel(want) && want.every((d, i) => got.slice(-want.length)[i] === d)) return;
    throw new RcmError("E_SHAPE", `${what} of sample ${key} in ${shards[0]}`, { op: "data", want, got });
  };
  expectShape("latent", latent.shape, recipe.data.shape);
  expectShape("text embedding", embed.shape, [textLen, textDim]);
  if (hasNonfinite(latent)) {
    const message = `the latent of sample ${key} in ${shards[0]} holds values that are not finite`;
    throw new RcmError("E_FORMAT", message, { op: "data" });
  }
  return {
    path: recipe.data.path,
    shards: shards.length,
    firstShard: entries.length,
    latent: `[${latent.shape}] ${latent.dtype}, trained on [${latentShape(recipe)}]`,
    embed: `[${embed.shape}] ${embed.dtype}`,
  };
}
