import { existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { HostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { readSafetensors, writeSafetensors } from "../io/safetensors.ts";
import type { StreamPosition } from "../io/webdataset.ts";
import type { Tensor } from "../tensor.ts";
import type { AdamW } from "../optim/adamw.ts";
import type { Trainer } from "./trainer.ts";

/**
 * A checkpoint is one file `checkpoint_%09d.safetensors` with everything a bitwise resume needs: weights, masters,
 * moments, EMA and, in its metadata, counters, data position and recipe hash (random numbers are a pure function of seed
 * and step). It is written under a temporary name, synced and renamed, so a crash leaves the previous one whole.
 */
interface CheckpointMeta {
  step: number;
  skipped: number;
  studentUpdates: number;
  criticUpdates: number;
  recipeHash: string;
  data: StreamPosition;
}

const NAME = /^checkpoint_(\d{9})\.safetensors$/;

export const checkpointPath = (folder: string, step: number): string => join(folder, `checkpoint_${String(step).padStart(9, "0")}.safetensors`);

/** Complete checkpoints of a run, oldest first. */
export function listCheckpoints(folder: string): { step: number; path: string }[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .map((f) => ({ match: NAME.exec(f), f }))
    .filter(({ match }) => match !== null)
    .map(({ match, f }) => ({ step: Number(match?.[1]), path: join(folder, f) }))
    .sort((a, b) => a.step - b.step);
}

/** Flat state by name; all buffers of one network share its layout. */
function* states(trainer: Trainer): Generator<[string, Tensor]> {
  const of = function* (role: string, opt: AdamW | null): Generator<[string, Tensor]> {
    if (!opt) return;
    yield [`${role}.weights`, opt.params.flat];
    if (opt.master) yield [`${role}.master`, opt.master];
    if (opt.m) yield [`${role}.m`, opt.m];
    yield [`${role}.v`, opt.v];
  };
  yield* of("student", trainer.studentOpt);
  yield ["student.ema", trainer.ema];
  yield* of("critic", trainer.criticOpt);
}

/** Every flat state cut into its parameters, `role.state/parameter`, so that a reader needs no layout. */
function* named(trainer: Trainer): Generator<[string, HostTensor]> {
  for (const [name, flat] of states(trainer)) {
    const params = name.startsWith("critic") ? trainer.criticOpt?.params : trainer.studentOpt.params;
    for (const [param, host] of (params as AdamW["params"]).entries(flat)) yield [`${name}/${param}`, host];
  }
}

/** Writes a checkpoint and removes all but the newest `keep`. Throws: E_IO, the previous checkpoints being untouched. */
export function saveCheckpoint(trainer: Trainer, folder: string, recipeHash: string, data: StreamPosition, keep: number): string {
  mkdirSync(folder, { recursive: true });
  const meta: CheckpointMeta = {
    step: trainer.step,
    skipped: trainer.skipped,
    studentUpdates: trainer.studentOpt.updates,
    criticUpdates: trainer.criticOpt?.updates ?? 0,
    recipeHash,
    data,
  };
  const path = checkpointPath(folder, trainer.step);
  writeSafetensors(path, named(trainer), { format: "rcm-checkpoint", state: JSON.stringify(meta) });
  for (const old of listCheckpoints(folder).slice(0, -keep)) rmSync(old.path, { force: true });
  return path;
}

/** Restores a trainer bitwise. Throws: E_STATE when the checkpoint belongs to another recipe, E_FORMAT when it is damaged. */
export function loadCheckpoint(trainer: Trainer, path: string, recipeHash: string): StreamPosition {
  const { metadata, tensors } = readSafetensors(path);
  if (metadata.format !== "rcm-checkpoint" || metadata.state === undefined) throw new RcmError("E_FORMAT", `${path} is not a checkpoint of a run`, { op: "resume" });
  const meta = JSON.parse(metadata.state) as CheckpointMeta;
  if (meta.recipeHash !== recipeHash) {
    throw new RcmError("E_STATE", `${path} was written by another recipe; give another --out, or the recipe of that run`, { op: "resume", want: recipeHash, got: meta.recipeHash });
  }
  for (const [name, flat] of states(trainer)) {
    const params = (name.startsWith("critic") ? trainer.criticOpt : trainer.studentOpt)?.params as AdamW["params"];
    for (const param of params.names) {
      const host = tensors.get(`${name}/${param}`);
      const into = params.window(flat, param);
      if (!host || host.dtype !== into.dtype) throw new RcmError("E_FORMAT", `${path} lacks ${name}/${param} in ${into.dtype}`, { op: "resume", got: host?.dtype ?? "nothing" });
      into.setHost(host);
    }
  }
  trainer.step = meta.step;
  trainer.skipped = meta.skipped;
  trainer.studentOpt.updates = meta.studentUpdates;
  if (trainer.criticOpt) trainer.criticOpt.updates = meta.criticUpdates;
  return meta.data;
}

/** Weights of a network inside a checkpoint, under their own names. Throws: E_FORMAT when there are none. */
export function checkpointWeights(tensors: ReadonlyMap<string, HostTensor>, state: "student.ema" | "student.master" | "student.weights"): Map<string, HostTensor> {
  const prefix = `${state}/`;
  const out = new Map([...tensors].filter(([n]) => n.startsWith(prefix)).map(([n, t]) => [n.slice(prefix.length), t] as const));
  if (out.size === 0) throw new RcmError("E_FORMAT", `no ${state} in this file`, { op: "checkpoint" });
  return out;
}
