import { RcmError } from "../error.ts";
import { isFloat, type DType } from "../dtype.ts";
import { openCheckpoint, type Checkpoint, type Stored } from "../io/checkpoint.ts";
import { WAN_VAE, type WanVaeConfig } from "../models/wan_vae/config.ts";
import { vaeKeyToOriginal, wanVaeParams } from "../models/wan_vae/keys.ts";
import { WanVae } from "../models/wan_vae/model.ts";
import type { Device } from "../tensor.ts";
import { describeFit, fitOf, loadParams } from "./load.ts";

/** The VAE in a checkpoint: its size from the shapes, its tensors under Wan's names. Throws: E_IO, E_FORMAT when there is none or it does not fit. */
export function vaeIn(path: string): { checkpoint: Checkpoint; config: WanVaeConfig; tensors: ReadonlyMap<string, Stored> } {
  const checkpoint = openCheckpoint(path);
  const tensors = new Map([...checkpoint.tensors].map(([key, t]) => [vaeKeyToOriginal(key, WAN_VAE) ?? key, t]));
  const [first, latent] = [tensors.get("encoder.conv1.weight")?.shape, tensors.get("conv2.weight")?.shape];
  if (first?.length !== 5 || !latent || latent[0] !== WAN_VAE.zDim || !isFloat((tensors.get("conv2.weight") as Stored).dtype)) {
    throw new RcmError("E_FORMAT", `${path} holds no Wan VAE`, { op: "vae", want: `encoder.conv1.weight [dim, 3, 3, 3, 3] and conv2.weight of ${WAN_VAE.zDim} channels`, got: [...checkpoint.tensors.keys()].slice(0, 3) });
  }
  const config = { ...WAN_VAE, dim: first[0] };
  const problem = describeFit(fitOf({ specs: wanVaeParams(config) }, tensors));
  if (problem !== "") throw new RcmError("E_FORMAT", `${path} does not fit the Wan VAE: ${problem}`, { op: "vae" });
  return { checkpoint, config, tensors };
}

/** Opens a VAE and streams its weights to the device. Throws: as `vaeIn`. */
export function openWanVae(device: Device, path: string, dtype: DType): WanVae {
  const { checkpoint, config, tensors } = vaeIn(path);
  const vae = WanVae.create(device, config, { dtype });
  loadParams(vae.params, tensors, checkpoint.path);
  return vae;
}
