import type { HostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { readWeights, type WeightKind } from "../export/weights.ts";
import { WAN_PRESETS, type WanConfig } from "../models/wan/config.ts";
import { WanModel, type WanOptions } from "../models/wan/model.ts";
import type { ParamSet } from "../nn/params.ts";
import type { Device } from "../tensor.ts";
import { residentNet, streamedNet, type SampleNet } from "./net.ts";
import { StreamedWeights } from "./offload.ts";

/** Width of a head in every published Wan network. */
const HEAD = 128;

function inferred(weights: ReadonlyMap<string, HostTensor>, path: string): WanConfig {
  const shape = (name: string): number[] => {
    const found = weights.get(name)?.shape;
    if (!found) throw new RcmError("E_FORMAT", `${path} does not hold a Wan network: ${name} is missing`, { op: "weights" });
    return found;
  };
  const base = WAN_PRESETS["wan2.1-1.3b"];
  const [dim, ...patch] = shape("patch_embedding.weight");
  const volume = base.patch.reduce((n, d) => n * d, 1);
  const layers = 1 + Math.max(...[...weights.keys()].map((n) => Number(/^blocks\.(\d+)\./.exec(n)?.[1] ?? -1)));
  return {
    ...base, dim, heads: dim / HEAD, layers, ffnDim: shape("blocks.0.ffn.0.weight")[0], inDim: patch.reduce((n, d) => n * d, 1) / volume,
    outDim: shape("head.head.weight")[0] / volume, freqDim: shape("time_embedding.0.weight")[1], textDim: shape("text_embedding.0.weight")[1],
  };
}

export interface NetOptions {
  /** Null: from the weights' shapes. */
  config: WanConfig | null;
  kind: WeightKind;
  wan: WanOptions;
  /** Streams blocks from the host; `events` as in StreamedWeights. */
  offload: { events: number } | null;
}

/** Opens the network of a file or run folder. Throws: E_IO, E_FORMAT, E_STATE naming keys that do not fit. */
export function openNet(device: Device, path: string, o: NetOptions): SampleNet {
  const weights = readWeights(path, o.kind);
  const config = o.config ?? inferred(weights, path);
  if (!o.offload) {
    const model = WanModel.create(device, config, o.wan);
    model.load(weights, path);
    return residentNet(model);
  }
  const read = (part: ParamSet): void => part.load(new Map(part.names.flatMap((n) => { const t = weights.get(n); return t ? [[n, t] as const] : []; })), path);
  return streamedNet(config, new StreamedWeights(device, config, o.wan.dtype, read, o.offload.events), o.wan);
}
