import { hostValues } from "../../core/dtype.ts";
import { WanModel } from "../../core/models/wan/model.ts";
import { constant, Tape } from "../../core/tape.ts";
import type { Device } from "../../core/tensor.ts";
import { loadWan, type LoadOptions, type LoadReport } from "../../core/weights/load.ts";
import { asPublished, renamed, type Tensors } from "./formats.ts";
import { golden, relativeError } from "./golden.ts";
import { goldenConfig } from "./golden_wan.ts";

const dit = golden("wan_dit.safetensors");
export const config = goldenConfig(dit.metadata.config);
export const original = dit.under("params.");
export const published = asPublished(original, config.patch);
export const under = (prefix: string, tensors: Tensors): Tensors => renamed(tensors, (k) => prefix + k);
export const both = (a: Tensors, b: Tensors): Tensors => new Map([...a, ...b]);

export const build = (device: Device, dtype: "f32" | "bf16" = "f32"): WanModel =>
  WanModel.create(device, config, { dtype, residual: "f32", checkpoint: "none", trainable: false });

/** Error of the golden output with the weights at a path. */
export function outputError(
  device: Device, path: string, o: LoadOptions = {},
): { error: number; report: LoadReport } {
  using _scope = device.scope();
  const model = build(device);
  const report = loadWan(model.params, path, o);
  const up = (name: string) => constant(device.fromHost(dit.get(name)));
  const y = model.forward(new Tape(device, { record: false }), up("x"), { t: hostValues(dit.get("t")), dot: null }, up("context"));
  return { error: relativeError(y.x.values(), hostValues(dit.get("y"))), report };
}
