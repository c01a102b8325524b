import type { Hash } from "node:crypto";
import { existsSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { hostTensor, hostValues, numel, type HostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { isSharded, openCheckpoint, readHost, type Checkpoint, type Stored } from "../io/checkpoint.ts";
import { readJson, withSource } from "../io/source.ts";
import { FAMILIES } from "../models/families.ts";
import { netSpec, type Family, type NetSpec } from "../models/family.ts";
import { networksIn, ownName, preferredOf, type FoundLayout, type WeightKind } from "../models/layout.ts";
import { listCheckpoints } from "./run_folder.ts";

/** A network in a checkpoint of any format and spelling. */
export interface FoundNetwork extends FoundLayout {
  family: Family;
  checkpoint: Checkpoint;
  /** Stored tensors by the family's own names; keys of other networks in the file are left out. */
  tensors: ReadonlyMap<string, Stored>;
}

/**
 * The file or folder behind a path: of a run folder its newest checkpoint, else itself. Throws: E_IO when there is
 * nothing.
 */
export function resolveWeights(path: string): string {
  if (!existsSync(path)) throw new RcmError("E_IO", `${path} does not exist`, { op: "weights" });
  if (!statSync(path).isDirectory()) return path;
  const found = listCheckpoints(join(path, "checkpoints"));
  return found.length > 0 ? found[found.length - 1].path : path;
}

/**
 * Opens weights by their headers and finds the network in them. Throws: E_IO, E_FORMAT when there is none, or several
 * to choose from.
 */
export const openNetwork = (path: string, kind: WeightKind = "ema"): FoundNetwork =>
  networkIn(openCheckpoint(resolveWeights(path)), kind);

/** Prefixes of the networks of every family that a checkpoint holds. */
export const prefixesIn = (checkpoint: Checkpoint): string[] =>
  Object.values(FAMILIES).flatMap((family) =>
    networksIn(family.layouts, checkpoint.tensors.keys()).map((n) => n.prefix),
  );

/** The network in an opened checkpoint. Throws: as `openNetwork`. */
export function networkIn(checkpoint: Checkpoint, kind: WeightKind = "ema"): FoundNetwork {
  const keys = [...checkpoint.tensors.keys()];
  for (const family of Object.values(FAMILIES)) {
    const all = networksIn(family.layouts, keys);
    if (all.length === 0) continue;
    const found = preferredOf(all, kind);
    if (!found) {
      throw new RcmError("E_FORMAT", `${checkpoint.path} holds several networks`, {
        op: "weights",
        got: all.map((n) => n.prefix),
      });
    }
    return { ...found, family, checkpoint, tensors: tensorsOf(checkpoint, found) };
  }
  const titles = Object.values(FAMILIES).map((f) => f.title).join(" or ");
  const probes = Object.values(FAMILIES).flatMap((f) => [...new Set(f.layouts.map((l) => l.probe))]);
  throw new RcmError("E_FORMAT", `${checkpoint.path} holds no ${titles} network`, {
    op: "weights",
    want: `${probes.join(" or ")}, behind any prefix`,
    got: keys.slice(0, 3),
  });
}

function tensorsOf(checkpoint: Checkpoint, found: FoundLayout): Map<string, Stored> {
  const tensors = new Map<string, Stored>();
  for (const [key, t] of checkpoint.tensors) {
    const name = ownName(found, key);
    if (name === null || BUFFERS.test(name) || F8_COMPANIONS.test(name) || belongsElsewhere(found.prefix, key)) {
      continue;
    }
    if (tensors.has(name)) {
      throw new RcmError("E_FORMAT", `${checkpoint.path} holds ${name} under two keys`, { op: "weights", got: key });
    }
    tensors.set(name, t.dtype === "f8_e4m3" ? scaled(checkpoint, key, t) : t);
  }
  return tensors;
}

/**
 * What a found network is: sizes by its shapes and, for what they cannot say, by a config.json next to the file.
 * Throws: E_FORMAT naming the tensor that does not say how large the network is.
 */
export const specOf = ({ family, checkpoint, tensors }: FoundNetwork): NetSpec =>
  netSpec(family, family.configOf(tensors, configNear(checkpoint.path), checkpoint.path));

/** The config.json of a file's folder, or of the folder itself; empty when there is none or it is no map. */
function configNear(path: string): Record<string, unknown> {
  const file = [join(path, "config.json"), join(dirname(path), "config.json")].find((f) => existsSync(f));
  const json = file ? readJson(file) : null;
  return typeof json === "object" && json !== null ? (json as Record<string, unknown>) : {};
}

/** Tables and counters that some programs store beside the parameters; they are computed here. */
const BUFFERS = /^accum_\w+$|(?:^|\.)(?:_extra_state|freqs|seq|dim_spatial_range|dim_temporal_range)$/;

/** What stands beside f8 weights: scales in both spellings of ComfyUI, scales of activations, notes for its loader. */
const F8_COMPANIONS = /(?:^|\.)(?:weight_scale|scale_weight|input_scale|scale_input|comfy_quant|scaled_fp8)$/;

/** An f8 weight with its scale. Throws: E_FORMAT for anything but one scale a tensor. */
function scaled(checkpoint: Checkpoint, key: string, t: Stored): Stored {
  const layer = key.replace(/\.weight$/, "");
  const stored = checkpoint.tensors.get(`${layer}.weight_scale`) ?? checkpoint.tensors.get(`${layer}.scale_weight`);
  if (!stored) return t;
  if (numel(stored.shape) !== 1) {
    throw new RcmError("E_FORMAT", `${checkpoint.path}: ${stored.name} is not one scale for the tensor`, {
      op: "weights",
      got: stored.shape,
    });
  }
  const scale = hostValues(readHost(stored))[0];
  if (!(scale > 0 && Number.isFinite(scale))) {
    throw new RcmError("E_FORMAT", `${checkpoint.path}: ${stored.name} is no scale`, { op: "weights", got: scale });
  }
  return isSharded(t)
    ? { ...t, parts: t.parts.map((p) => ({ ...p, stored: { ...p.stored, scale } })) }
    : { ...t, scale };
}

/** An empty prefix takes every key, also those of a second network beside the first. */
const belongsElsewhere = (prefix: string, key: string): boolean =>
  prefix === "" && /^(?:net|net_ema|net_fake_score|net_teacher|model|model_ema|ema|student|critic)[./]/.test(key);

/**
 * All weights of the network in host memory, by original names. For networks that fit there; loading streams instead.
 * Throws: E_IO, E_FORMAT.
 */
export function readWeights(path: string, kind: WeightKind = "ema"): Map<string, HostTensor> {
  return new Map(
    [...openNetwork(path, kind).tensors].map(([name, t]) => [
      name,
      unscaled(readHost(t), isSharded(t) ? t.parts[0]?.stored.scale : t.scale),
    ]),
  );
}

const unscaled = (t: HostTensor, scale = 1): HostTensor =>
  t.dtype === "f8_e4m3"
    ? hostTensor(
        "f32",
        t.shape,
        hostValues(t).map((v) => v * scale),
      )
    : t;

/** The files a checkpoint's tensors lie in. */
export const filesOf = (c: Checkpoint): string[] =>
  [
    ...new Set([...c.tensors.values()].flatMap((t) => (isSharded(t) ? t.parts.map((p) => p.stored.file) : [t.file]))),
  ].sort();

/** Feeds the bytes of all weight files to a hash, in pieces. */
export function hashWeights(hash: Hash, path: string): void {
  for (const file of filesOf(openCheckpoint(resolveWeights(path)))) {
    withSource(file, (source) => {
      for (let at = 0; at < source.size; at += 1 << 22) {
        hash.update(source.read(at, Math.min(1 << 22, source.size - at)));
      }
    });
  }
}
