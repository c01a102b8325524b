import { existsSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { numel, type DType } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { readStored, type Checkpoint, type Stored } from "../io/checkpoint.ts";
import type { WanConfig } from "../models/wan/config.ts";
import type { WeightKind } from "../models/wan/layouts.ts";
import { loadRecipe } from "../recipe/load.ts";
import type { Device, Tensor } from "../tensor.ts";
import { wanConfig } from "../networks/build.ts";
import { wanConfigOf } from "../weights/load.ts";
import { openWan } from "../weights/open.ts";

/** A weight that is fetched when its turn comes. */
export interface SourceTensor {
  /** Original name. */
  name: string;
  shape: readonly number[];
  /** What it is stored in; values of f8 carry their scale. */
  dtype: DType;
  /** Reads it into device memory as `dtype`. */
  load(device: Device, dtype: DType): Tensor;
}

/** The weights of one network, wherever they come from. */
export interface ExportSource {
  path: string;
  tensors: ReadonlyMap<string, SourceTensor>;
  /** Sizes of the network; null when neither recipe, file nor shapes tell them. */
  config: WanConfig | null;
  /** Worth keeping in the metadata of what is written: recipe, hash. */
  origin: Record<string, string>;
}

/** Opens weights of any format and layout by their headers. Throws: E_IO, E_FORMAT. */
export function openSource(path: string, kind: WeightKind): ExportSource {
  const { checkpoint, tensors } = openWan(path, kind);
  const { config, origin } = describe(path, checkpoint, kind, tensors);
  return { path: checkpoint.path, config, origin, tensors: new Map([...tensors].map(([name, t]) => [name, stored(name, t)])) };
}

const stored = (name: string, t: Stored): SourceTensor => ({
  name,
  shape: t.shape,
  dtype: t.dtype,
  load(device, dtype) {
    const into = device.empty(t.shape, dtype);
    readStored(t, into);
    return into;
  },
});

/** Sizes and origin: of the run a checkpoint lies in, else what an earlier export noted, else what shapes tell. */
function describe(path: string, checkpoint: Checkpoint, kind: WeightKind, tensors: ReadonlyMap<string, Stored>): Pick<ExportSource, "config" | "origin"> {
  const secondTime = tensors.has("time_embedding_r.0.weight");
  const folder = existsSync(path) && statSync(path).isDirectory() ? path : join(dirname(path), "..");
  const recipe = join(folder, "recipe.yaml");
  if (existsSync(recipe)) {
    const loaded = loadRecipe(recipe);
    return { config: { ...wanConfig(loaded.recipe.model, secondTime) }, origin: { recipe: loaded.recipe.name, recipe_hash: loaded.hash } };
  }
  const { recipe: name, recipe_hash: hash, wan_config: noted } = checkpoint.metadata;
  const origin = { ...(name ? { recipe: name } : {}), ...(hash ? { recipe_hash: hash } : {}) };
  return { config: (noted && parseConfig(noted)) || guess(checkpoint, kind), origin };
}

function guess(checkpoint: Checkpoint, kind: WeightKind): WanConfig | null {
  try {
    return wanConfigOf(checkpoint, kind);
  } catch (error) {
    if (error instanceof RcmError && error.code === "E_FORMAT") return null;
    throw error;
  }
}

/** A configuration as an export notes it; null when it is none. */
export function parseConfig(text: string): WanConfig | null {
  let c: unknown;
  try {
    c = JSON.parse(text);
  } catch {
    return null;
  }
  if (typeof c !== "object" || c === null) return null;
  const v = c as Record<string, unknown>;
  const counts = [v.dim, v.heads, v.layers, v.ffnDim, v.inDim, v.outDim, v.freqDim, v.textDim, v.textLen, v.timeScale, ...(Array.isArray(v.patch) && v.patch.length === 3 ? v.patch : [0])];
  const whole = counts.every((n) => Number.isSafeInteger(n) && (n as number) > 0);
  return whole && typeof v.eps === "number" && typeof v.secondTime === "boolean" ? (c as WanConfig) : null;
}

/** The shape of the patch embedding's weight as Conv3d has it; unchanged where the sizes are not known. */
export function conv3dShape(shape: readonly number[], config: WanConfig | null): readonly number[] {
  if (shape.length !== 2 || !config || numel(shape) !== shape[0] * config.inDim * numel(config.patch)) return shape;
  return [shape[0], config.inDim, ...config.patch];
}
