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
 * A checkpoint is one file `checkpoint_%09d.safetensors` with everything a bitwise resume needs: masters (or f32 weights),
 * moments, EMA and, in its metadata, counters, data position and recipe hash (random numbers are a pure function of seed
 * and step). It is written under a temporary name, synced and renamed, so a crash leaves the previous one whole.
 */
interface CheckpointMeta {
  step: number;
  skipped: number;
  /** Optimizer updates by role; checkpoints from before roles had a number of each kind. */
  updates?: Partial<Record<RoleName, number>>;
  studentUpdates?: number;
  criticUpdates?: number;
  recipeHash: string;
  data: StreamPosition;
  /** Version of the keys that noise is drawn by; absent in checkpoints from before they had one. */
  noiseKeys?: number;
}

/** Version 1 (unwritten) keyed by micro-batch and could repeat a noise; version 2 keys by use, step, sample of the global batch and index. */
const NOISE_KEYS = 2;

/** Every saved buffer of every role cut into its parameters, `role.state/parameter`, so that a reader needs no layout. */
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

/**
 * Writes a checkpoint, a piece of a tensor at a time from the device, and removes all but the newest `keep`.
 * Throws: E_IO, the previous checkpoints being untouched.
 */
export function saveCheckpoint(
  state: TrainState,
  folder: string,
  recipeHash: string,
  data: StreamPosition,
  keep: number,
): string {
  mkdirSync(folder, { recursive: true });
  const meta: CheckpointMeta = {
    step: state.step,
    skipped: state.skipped,
    updates: Object.fromEntries(
      [...state.roles].filter(([, role]) => role.optimizer).map(([name, role]) => [name, role.updates]),
    ),
    recipeHash,
    data,
    noiseKeys: NOISE_KEYS,
  };
  const path = checkpointPath(folder, state.step);
  const tensors = Array.from(
    windows(state),
    ([name, t]) => ({ name, dtype: t.dtype, shape: t.shape, bytes: t.bytes, chunks: () => t.hostChunks() }),
  );
  using file = new AtomicFile(path);
  streamSafetensors(file, tensors, { format: "rcm-checkpoint", state: JSON.stringify(meta) });
  file.commit();
  for (const old of listCheckpoints(folder).slice(0, -keep)) rmSync(old.path, { force: true });
  return path;
}

/** Removes what a killed run left half written. */
export function sweepCheckpoints(folder: string): void {
  if (!existsSync(folder)) return;
  for (const file of readdirSync(folder)) {
    if (/^\.checkpoint_\d{9}\.safetensors\.\d+\.tmp$/.test(file)) rmSync(join(folder, file), { force: true });
  }
}

/** Restores a run's state bitwise, a piece of a tensor at a time. Throws: E_STATE when the checkpoint belongs to another recipe, E_FORMAT when it is damaged. */
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
    throw new RcmError(
      "E_STATE",
      `${path} was written by another recipe; give another --out, or the recipe of that run`,
      { op: "resume", want: recipeHash, got: meta.recipeHash },
    );
  }
  if (meta.noiseKeys !== NOISE_KEYS) {
    warn(
      `${path} was written with noise keys of the old kind; from step ${meta.step} on noise is drawn by the new ones, so this run will not repeat an old one bit for bit`,
    );
  }
  for (const [name, into] of windows(state)) {
    const stored = tensors.get(name);
    if (!stored || stored.dtype !== into.dtype) {
      throw new RcmError("E_FORMAT", `${path} lacks ${name} in ${into.dtype}`, {
        op: "resume",
        got: stored?.dtype ?? "nothing",
      });
    }
    readStored(stored, into);
  }
  const updates: CheckpointMeta["updates"] = meta.updates ??
    { student: meta.studentUpdates, critic: meta.criticUpdates };
  for (const [name, { optimizer, network }] of state.roles) {
    if (!optimizer) continue;
    if (optimizer.master) network.params.flat.set(optimizer.master);
    optimizer.updates = updates[name] ?? 0;
  }
  state.step = meta.step;
  state.skipped = meta.skipped;
  return meta.data;
}
