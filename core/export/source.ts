import { existsSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import type { DType } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { readStored, type Stored } from "../io/checkpoint.ts";
import type { Family, NetConfig } from "../models/family.ts";
import type { WeightKind } from "../models/layout.ts";
import { recipeNet, wantsSecondTime } from "../networks/build.ts";
import { loadRecipe } from "../recipe/load.ts";
import type { Device, Tensor } from "../tensor.ts";
import { openNetwork, specOf, type FoundNetwork } from "../weights/resolve.ts";

/** A weight that is read on demand. */
export interface SourceTensor {
  /** Original name. */
  name: string;
  shape: readonly number[];
  /** Storage dtype; f8 values have a scale. */
  dtype: DType;
  /** Reads it into device memory as `dtype`. */
  load(device: Device, dtype: DType): Tensor;
}

/** The weights of one network, wherever they come from. */
export interface ExportSource {
  path: string;
  family: Family;
  tensors: ReadonlyMap<string, SourceTensor>;
  /** Sizes of the network; null when neither recipe, file nor shapes determine them. */
  config: NetConfig | null;
  /** Metadata to keep in the output: recipe, hash. */
  origin: Record<string, string>;
}

/** Opens weights of any format and layout by their headers. Throws: E_IO, E_FORMAT. */
export function openSource(path: string, kind: WeightKind): ExportSource {
  const found = openNetwork(path, kind);
  const { checkpoint, family, tensors } = found;
  return {
    path: checkpoint.path,
    family,
    ...describe(path, found),
    tensors: new Map([...tensors].map(([name, t]) => [name, stored(name, t)])),
  };
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

/** Sizes and origin: from the checkpoint's run, else from an earlier export's metadata, else from the shapes. */
function describe(path: string, found: FoundNetwork): Pick<ExportSource, "config" | "origin"> {
  const folder = existsSync(path) && statSync(path).isDirectory() ? path : join(dirname(path), "..");
  const file = join(folder, "recipe.yaml");
  if (existsSync(file)) {
    const { recipe, hash } = loadRecipe(file);
    return {
      config: recipeNet(recipe, wantsSecondTime(recipe)).config,
      origin: { recipe: recipe.name, recipe_hash: hash },
    };
  }
  const { metadata } = found.checkpoint;
  const { recipe, recipe_hash: hash } = metadata;
  const origin = { ...(recipe ? { recipe } : {}), ...(hash ? { recipe_hash: hash } : {}) };
  return { config: found.family.noted(metadata) ?? guess(found), origin };
}

function guess(found: FoundNetwork): NetConfig | null {
  try {
    return specOf(found).config;
  } catch (error) {
    if (error instanceof RcmError && error.code === "E_FORMAT") return null;
    throw error;
  }
}
