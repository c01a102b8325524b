import { isFloat, type DType } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { openCheckpoint, type Checkpoint, type Stored } from "../io/checkpoint.ts";
import { VAES } from "../models/families.ts";
import type { Vae, VaeFamily } from "../models/vae.ts";
import type { Device } from "../tensor.ts";
import { describeFit, fitOf, loadParams } from "./fit.ts";

/** An autoencoder found in a checkpoint: sizes inferred from shapes, tensors by the family's parameter names. */
export interface FoundVae {
  family: VaeFamily;
  checkpoint: Checkpoint;
  config: unknown;
  tensors: ReadonlyMap<string, Stored>;
}

/** Finds the autoencoder of a family in a checkpoint. Throws: E_IO; E_FORMAT if it is missing or does not fit. */
export function vaeIn(path: string, family: VaeFamily = Object.values(VAES)[0]): FoundVae {
  const checkpoint = openCheckpoint(path);
  const tensors = new Map([...checkpoint.tensors].map(([key, t]) => [family.canonicalName(key) ?? key, t]));
  const config = family.configOf(tensors);
  if (config === null || [...tensors.values()].every((t) => !isFloat(t.dtype))) {
    throw new RcmError("E_FORMAT", `${path} holds no ${family.title}`, {
      op: "vae",
      want: family.wanted,
      got: [...checkpoint.tensors.keys()].slice(0, 3),
    });
  }
  const problem = describeFit(fitOf({ specs: family.params(config) }, tensors));
  if (problem !== "") {
    throw new RcmError("E_FORMAT", `${path} does not fit the ${family.title}: ${problem}`, { op: "vae" });
  }
  return { family, checkpoint, config, tensors };
}

/** Opens an autoencoder and streams its weights to the device. Throws: as `vaeIn`. */
export function openVae(device: Device, path: string, dtype: DType, family?: VaeFamily): Vae {
  const found = vaeIn(path, family);
  const vae = found.family.create(device, found.config, dtype);
  try {
    loadParams(vae.params, found.tensors, found.checkpoint.path);
  } catch (error) {
    vae.params[Symbol.dispose]();
    throw error;
  }
  return vae;
}
