import type { DType } from "../../core/dtype.ts";
import { netSpec, type NetOptions, type NetSpec } from "../../core/models/family.ts";
import { canonicalName, type Layout } from "../../core/models/layout.ts";
import type { WanConfig } from "../../core/models/wan/config.ts";
import { wan } from "../../core/models/wan/family.ts";
import { WAN_LAYOUTS } from "../../core/models/wan/layouts.ts";
import { Network } from "../../core/networks/network.ts";
import { constant, type Var } from "../../core/tape.ts";
import type { Device } from "../../core/tensor.ts";

export const wanSpec = (config: WanConfig): NetSpec => netSpec(wan, config);

export const wanNetwork = (
  device: Device, config: WanConfig, { trainable = false, ...o }: NetOptions & { trainable?: boolean },
): Network => Network.create(device, wanSpec(config), o, trainable);

/** A time and its tangent in network units, on the device. Shapes: [B]. */
export const netTime = (device: Device, t: Float64Array, dot: Float64Array | null = null): Var => {
  const vector = (v: Float64Array) => device.fromValues(v, [v.length], "f64" satisfies DType);
  return constant(vector(t), dot && vector(dot));
};

const layoutNamed = (name: string): Layout => {
  const found = WAN_LAYOUTS.find((l) => l.name === name);
  if (!found) throw new Error(`no layout ${name}`);
  return found;
};

/** The key of a parameter in a layout, and back. */
export const keyOf = (layout: string, prefix: string, name: string): string =>
  prefix + layoutNamed(layout).fromCanonical(name);
export const nameOf = (layout: string, prefix: string, key: string): string | null =>
  canonicalName({ layout: layoutNamed(layout), prefix }, key);
