import { existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { RcmError } from "../error.ts";
import { openCheckpoint, readStored } from "../io/checkpoint.ts";
import { AtomicFile } from "../io/out_file.ts";
import { streamSafetensors } from "../io/safetensors.ts";
import type { StreamPosition } from "../io/webdataset.ts";
import type { Tensor } from "../tensor.ts";
import { checkpointPath, listCheckpoints } from "../weights/run_folder.ts";
import type { RoleName } from "./role.ts";
import type { TrainState } from "./state.ts";

/**
 * A checkpoint is one file `checkpoint_%09d.safetensors` with everything a bitwise resume needs: master (or f32)
 * weights, moments, EMA and, in its metadata, counters, data position and recipe hash (random numbers are a pure
 * function of seed and step). It is written under a temporary name, synced and renamed, so that a crash leaves the
 * previous one intact.
 */
interface CheckpointMeta {
  step: number;
  skipped: number;
  /** Optimizer updates by role; older checkpoints have the two fields below instead. */
  updates?: Partial<Record<RoleName, number>>;
  studentUpdates?: number;
  criticUpdates?: number;
  recipeHash: string;
  data: StreamPosition;
  /** Version of the random number keys of noise; absent in version 1. */
  noiseKeys?: number;
}

/**
 * Version 1 was keyed by micro-batch and could repeat a noise tensor. Version 2 is keyed by use, step, sample of the
 * global batch and index.
 */
const NOISE_KEYS = 2;

/** Every saved buffer as one tensor per parameter, `role.state/parameter`, readable without the flat layout. */
function* windows({ roles }: TrainState): Generator<[string, Tensor]> {
  for (const [name, role] of roles) {
    const { params } = role.network;
    for (const { state, tensor, saved } of role.buffers()) {
      if (!saved) continue;
      for (const parameter of params.names) yield [`${name}.${state}/${parameter}`, params.window(tensor, parameter)];
    }
  }
}

/** Bytes of a checkpoint's tensors. */
export const checkpointBytes = (state: TrainState): number => [...windows(state)].reduce((n, [, t]) => n + t.bytes, 0);

export interface SaveOptions {
  recipeHash: string;
  /** Where in the data the run continues. */
  data: StreamPosition;
  /** Number of newest checkpoints that are kept. */
  keep: number;
}

/**
 * Writes a checkpoint, streaming tensors from the device in chunks, and removes all but the newest `keep`.
 * Throws: E_IO; previous checkpoints stay intact.
 */
export function saveCheckpoint(state: TrainState, folder: string, { recipeHash, data, keep }: SaveOptions): string {
  mkdirSync(folder, { recursive: true });
  const trained = [...state.roles].filter(([, role]) => role.optimizer);
  const meta: CheckpointMeta = {
    step: state.step,
    skipped: state.skipped,
    updates: Object.fromEntries(trained.map(([name, role]) => [name, role.updates])),
    recipeHash,
    data,
    noiseKeys: NOISE_KEYS,
  };
  const path = checkpointPath(folder, state.step);
  const tensors = Array.from(windows(state), ([name, t]) => {
    const { dtype, shape, bytes } = t;
    return { name, dtype, shape, bytes, chunks: () => t.hostChunks() };
  });
  using file = new AtomicFile(path);
  streamSafetensors(file, tensors, { format: "rcm-checkpoint", state: JSON.stringify(meta) });
  file.commit();
  for (const old of listCheckpoints(folder).slice(0, -keep)) rmSync(old.path, { force: true });
  return path;
}

/** Removes the temporary files of a killed run. */
export function sweepCheckpoints(folder: string): void {
  if (!existsSync(folder)) return;
  for (const file of readdirSync(folder)) {
    if (/^\.checkpoint_\d{9}\.safetensors\.\d+\.tmp$/.test(file)) rmSync(join(folder, file), { force: true });
  }
}

/**
 * Restores a run's state bitwise, streaming tensors in chunks.
 * Throws: E_STATE when the checkpoint belongs to another recipe, E_FORMAT when it is damaged.
 */
export function loadCheckpoint(
  state: TrainState,
  path: string,
  recipeHash: string,
  warn: (message: string) => void = () => {},
): StreamPosition {
  const { metadata, tensors } = openCheckpoint(path);
  if (metadata.format !== "rcm-checkpoint" || metadata.state === undefined) {
    throw new RcmError("E_FORMAT", `${path} is not a checkpoint of a run`, { op: "resume" });
  }
  const meta = JSON.parse(metadata.state) as CheckpointMeta;
  if (meta.recipeHash !== recipeHash) {
    const message = `${path} was written by another recipe; give another --out, or the recipe of that run`;
    throw new RcmError("E_STATE", message, { op: "resume", want: recipeHash, got: meta.recipeHash });
  }
  if (meta.noiseKeys !== NOISE_KEYS) {
    warn(
      `${path} was written with noise keys of the old kind; from step ${meta.step} on noise is drawn by the new ` +
        "ones, so this run will not repeat an old one bit for bit",
    );
  }
  for (const [name, into] of windows(state)) {
    const stored = tensors.get(name);
    if (!stored || stored.dtype !== into.dtype) {
      const got = stored?.dtype ?? "nothing";
      throw new RcmError("E_FORMAT", `${path} lacks ${name} in ${into.dtype}`, { op: "resume", got });
    }
    readStored(stored, into);
  }
  const { studentUpdates: student, criticUpdates: critic } = meta;
  const updates: CheckpointMeta["updates"] = meta.updates ?? { student, critic };
  for (const [name, { optimizer, network }] of state.roles) {
    if (!optimizer) continue;
    if (optimizer.master) network.params.flat.set(optimizer.master);
    optimizer.updates = updates[name] ?? 0;
  }
  state.step = meta.step;
  state.skipped = meta.skipped;
  return meta.data;
}
