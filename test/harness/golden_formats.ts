import { hostValues } from "../../core/dtype.ts";
import { constant, Tape } from "../../core/tape.ts";
import type { Device } from "../../core/tensor.ts";
import { loadNetwork, type LoadOptions, type LoadReport } from "../../core/weights/fit.ts";
import { asPublished, renamed, type Tensors } from "./formats.ts";
import { framesFirst, golden, relativeError } from "./golden.ts";
import { goldenConfig } from "./golden_wan.ts";
import { netTime, wanNetwork } from "./wan_net.ts";
import type { Network } from "../../core/networks/network.ts";

const dit = golden("wan_dit.safetensors");
export const config = goldenConfig(dit.metadata.config);
export const original = dit.under("params.");
export const published = asPublished(original, config.patch);
export const under = (prefix: string, tensors: Tensors): Tensors => renamed(tensors, (k) => prefix + k);
export const both = (a: Tensors, b: Tensors): Tensors => new Map([...a, ...b]);

export const build = (device: Device, dtype: "f32" | "bf16" = "f32"): Network =>
  wanNetwork(device, config, { dtype, residual: "f32", checkpoint: "none", trainable: false });

/** Error of the golden output with the weights at a path. */
export function outputError(
  device: Device, path: string, o: LoadOptions = {},
): { error: number; report: LoadReport } {
  using _scope = device.scope();
  const model = build(device);
  const report = loadNetwork(model.params, path, o);
  const up = (name: string) => constant(device.fromHost(framesFirst(dit.get(name))));
  const y = model.forward(
    new Tape(device, { record: false }), up("x"), [netTime(device, hostValues(dit.get("t")))], up("context"),
  );
  return { error: relativeError(y.x.values(), hostValues(framesFirst(dit.get("y")))), report };
}
