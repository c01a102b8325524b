import type { Hash } from "node:crypto";
import { existsSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { hostTensor, hostValues, numel, type HostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { isSharded, openCheckpoint, readHost, type Checkpoint, type Stored } from "../io/checkpoint.ts";
import { readJson, withSource } from "../io/source.ts";
import { FAMILIES } from "../models/families.ts";
import { netSpec, type Family, type NetSpec } from "../models/family.ts";
import { canonicalName, networksIn, preferredOf, type FoundLayout, type WeightKind } from "../models/layout.ts";
import { listCheckpoints } from "./run_folder.ts";

/** A network found in a checkpoint of any format and layout. */
export interface FoundNetwork extends FoundLayout {
  family: Family;
  checkpoint: Checkpoint;
  /** Stored tensors by the family's parameter names, without those of other networks in the file. */
  tensors: ReadonlyMap<string, Stored>;
}

/**
 * Resolves a run folder to its newest checkpoint; other paths stay unchanged.
 * Throws: E_IO if the path does not exist.
 */
export function resolveWeights(path: string): string {
  if (!existsSync(path)) throw new RcmError("E_IO", `${path} does not exist`, { op: "weights" });
  if (!statSync(path).isDirectory()) return path;
  const found = listCheckpoints(join(path, "checkpoints"));
  return found.length > 0 ? found[found.length - 1].path : path;
}

/**
 * Opens weights and finds the network in them by their headers.
 * Throws: E_IO; E_FORMAT when they hold no network, or several.
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
    const name = canonicalName(found, key);
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
 * Family and sizes of a found network, from shapes and, where they do not suffice, a config.json next to the file.
 * Throws: E_FORMAT naming the tensor from which the size cannot be inferred.
 */
export const specOf = ({ family, checkpoint, tensors }: FoundNetwork): NetSpec =>
  netSpec(family, family.configOf(tensors, configNear(checkpoint.path), checkpoint.path));

/** The config.json in a folder, or in the folder of a file; empty if it is missing or not a map. */
function configNear(path: string): Record<string, unknown> {
  const file = [join(path, "config.json"), join(dirname(path), "config.json")].find((f) => existsSync(f));
  const json = file ? readJson(file) : null;
  return typeof json === "object" && json !== null ? (json as Record<string, unknown>) : {};
}

/** Buffers that some programs store with the parameters; this program computes them. */
const BUFFERS = /^accum_\w+$|(?:^|\.)(?:_extra_state|freqs|seq|dim_spatial_range|dim_temporal_range)$/;

/** Keys that accompany f8 weights: weight scales in both spellings of ComfyUI, activation scales, loader metadata. */
const F8_COMPANIONS = /(?:^|\.)(?:weight_scale|scale_weight|input_scale|scale_input|comfy_quant|scaled_fp8)$/;

/** An f8 weight with its scale. Throws: E_FORMAT unless it has exactly one scale. */
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

/** An empty prefix matches every key, including those of another network in the same file. */
const belongsElsewhere = (prefix: string, key: string): boolean =>
  prefix === "" && /^(?:net|net_ema|net_fake_score|net_teacher|model|model_ema|ema|student|critic)[./]/.test(key);

/**
 * Reads all weights of the network into host memory, by parameter name. Loading into a network streams instead.
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

/** The files that hold a checkpoint's tensors. */
export const filesOf = (c: Checkpoint): string[] =>
  [
    ...new Set([...c.tensors.values()].flatMap((t) => (isSharded(t) ? t.parts.map((p) => p.stored.file) : [t.file]))),
  ].sort();

/** Updates a hash with the bytes of all weight files, in chunks. */
export function hashWeights(hash: Hash, path: string): void {
  for (const file of filesOf(openCheckpoint(resolveWeights(path)))) {
    withSource(file, (source) => {
      for (let at = 0; at < source.size; at += 1 << 22) {
        hash.update(source.read(at, Math.min(1 << 22, source.size - at)));
      }
    });
  }
}
