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
  /** Samples of the first shard, and what that makes of all. */
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
    /** What the driver and the libraries hold besides: assumed, not counted. */
    overhead: number;
    total: number;
    /** Total with the other checkpoint modes. */
    byCheckpoint: Record<CheckpointMode, number>;
    budget: number | null;
    budgetSource: string;
    fits: boolean | null;
  };
  disk: { checkpoint: number; kept: number; most: number; free: number; fits: boolean };
  compute: { parameters: number; tokens: number; batchTokens: number; flopPerStep: number; turns: Rehearsal["turns"]; run: number };
  problems: string[];
  ok: boolean;
}

/** CUDA context, kernels, cuBLASLt and gaps between the allocator's blocks. */
const CUDA_OVERHEAD = 1.5 * 2 ** 30;

export interface PlanOptions {
  recipe: Recipe;
  out: string;
  device: DeviceName;
  /** Memory of the card in bytes; null: asked of nvidia-smi. */
  memory: number | null;
}

/** Checks a run's inputs and predicts what it needs, without a device: nothing is allocated, nothing is written. */
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
    weights.push({ role, path: checkpoint.path, format: checkpoint.format, layout: layout.name, tensors: tensors.size, bytes: [...tensors.values()].reduce((n, t) => n + t.bytes, 0) });
  };
  if (teacher) checkWeights("teacher", teacher.weights);
  if (model.init !== "random" && model.init !== "teacher") checkWeights("student", model.init);
  attempt("teacher.negative_embed", () => storedNegative(recipe, spec.text));
  const vaePath = recipe.data.vae_round_trip;
  const vae = vaePath === null ? null : attempt("data.vae_round_trip", () => vaeIn(vaePath, VAES[spec.latent.vae ?? ""]));
  for (const [key, path] of Object.entries({ "text.encoder": text?.encoder, "text.tokenizer": text?.tokenizer })) {
    if (path && !existsSync(path)) problems.push(`${key}: ${path} does not exist`);
  }
  const data = attempt("data", () => checkData(recipe, spec.text.length, spec.text.width));

  const budget = cardMemory(device, memory);
  const backend = device === "cpu" || (device === "auto" && budget.card === null && memory === null) ? "cpu" : "cuda";
  const own = rehearse(recipe, backend, { vae });
  const overhead = backend === "cuda" ? CUDA_OVERHEAD : 0;
  const byCheckpoint = Object.fromEntries(CHECKPOINT_MODES.map((mode) => [mode, (mode === model.checkpoint ? own : rehearse(recipe, backend, { checkpoint: mode, vae })).peakBytes + overhead])) as Record<CheckpointMode, number>;
  const largest = own.turns.reduce((a, b) => (b.bytes > a.bytes ? b : a));
  const total = own.peakBytes + overhead;
  const bytes = memory ?? budget.card ?? (backend === "cpu" ? totalmem() : null);
  const fits = bytes === null ? null : total <= bytes;
  if (fits === false) problems.push(`memory: ${gib(total)} are wanted, ${gib(bytes as number)} are there${lighter(byCheckpoint, bytes as number)}`);

  const most = (recipe.train.keep_checkpoints + 1) * own.checkpointBytes;
  const free = freeDisk(out);
  if (most > free) problems.push(`disk: up to ${gib(most)} of checkpoints, ${gib(free)} free at ${out}; lower train.keep_checkpoints or give another --out`);
  return {
    recipe: recipe.name,
    weights,
    data,
    memory: {
      backend, items: own.resident, activations: { checkpoint: model.checkpoint, turn: largest.name, bytes: largest.bytes }, overhead, total, byCheckpoint,
      budget: bytes, budgetSource: memory !== null ? "--memory" : budget.card !== null ? budget.name : backend === "cpu" ? "this machine" : "no card seen; give --memory", fits,
    },
    disk: { checkpoint: own.checkpointBytes, kept: recipe.train.keep_checkpoints, most, free, fits: most <= free },
    compute: { parameters: own.parameters, tokens: own.tokens, batchTokens: own.tokens * recipe.train.batch * recipe.train.accumulate, flopPerStep: own.flopPerStep, turns: own.turns, run: own.flopPerStep * recipe.train.steps },
    problems,
    ok: problems.length === 0,
  };
}


function lighter(by: Record<CheckpointMode, number>, bytes: number): string {
  const fitting = CHECKPOINT_MODES.filter((mode) => by[mode] <= bytes).sort((a, b) => by[b] - by[a])[0];
  return fitting ? `; model.checkpoint: ${fitting} needs ${gib(by[fitting])}` : "; no checkpoint mode fits: take a larger card, or more of them";
}

/** Memory of the first card, from the driver's own tool: it allocates nothing. */
function cardMemory(device: PlanOptions["device"], given: number | null): { card: number | null; name: string } {
  if (device === "cpu" || given !== null) return { card: null, name: "" };
  const r = spawnSync("nvidia-smi", ["--query-gpu=memory.total,name", "--format=csv,noheader,nounits"], { encoding: "utf8", timeout: 10_000 });
  const match = r.status === 0 ? /^(\d+), (.+)$/m.exec(r.stdout) : null;
  return match ? { card: Number(match[1]) * 2 ** 20, name: match[2].trim() } : { card: null, name: "" };
}

function freeDisk(out: string): number {
  let at = out;
  while (!existsSync(at) && dirname(at) !== at) at = dirname(at);
  const disk = statfsSync(at);
  return disk.bavail * disk.bsize;
}

/** Reads the first sample of the first shard and compares it with the recipe. Throws: E_IO, E_FORMAT, E_SHAPE. */
function checkData(recipe: Recipe, textLen: number, textDim: number): CheckedData {
  const shards = listShards(recipe.data.path);
  const entries = indexShard(shards[0]);
  if (entries.length === 0) throw new RcmError("E_FORMAT", `${shards[0]} holds no samples`, { op: "data" });
  const { latent, embed, key } = withFile(shards[0], (fd) => decode(fd, entries[0]));
  const same = (got: number[], want: readonly number[]): boolean => numel(got) === numel(want) && want.every((d, i) => got.slice(-want.length)[i] === d);
  if (!same(latent.shape, recipe.data.shape)) throw new RcmError("E_SHAPE", `latent of sample ${key} in ${shards[0]}`, { op: "data", want: recipe.data.shape, got: latent.shape });
  if (!same(embed.shape, [textLen, textDim])) throw new RcmError("E_SHAPE", `text embedding of sample ${key} in ${shards[0]}`, { op: "data", want: [textLen, textDim], got: embed.shape });
  if (hasNonfinite(latent)) throw new RcmError("E_FORMAT", `the latent of sample ${key} in ${shards[0]} holds values that are not finite`, { op: "data" });
  return { path: recipe.data.path, shards: shards.length, firstShard: entries.length, latent: `[${latent.shape}] ${latent.dtype}, trained on [${latentShape(recipe)}]`, embed: `[${embed.shape}] ${embed.dtype}` };
}
