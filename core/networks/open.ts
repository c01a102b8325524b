import { RcmError } from "../error.ts";
import { readStored } from "../io/checkpoint.ts";
import type { WanConfig } from "../models/wan/config.ts";
import { wanParams } from "../models/wan/keys.ts";
import type { WeightKind } from "../models/wan/layouts.ts";
import { WanModel, type WanOptions } from "../models/wan/model.ts";
import type { ParamSet } from "../nn/params.ts";
import type { Device } from "../tensor.ts";
import { describeFit, fitOf, loadParams, wanConfigOf, type LoadOptions } from "../weights/load.ts";
import { openWan, type WanWeights } from "../weights/open.ts";
import { residentNet, streamedNet, type SampleNet } from "./net.ts";
import { StreamedWeights } from "./streamed.ts";

/** A network in a file, known by its headers. */
export interface FoundNet {
  weights: WanWeights;
  config: WanConfig;
}

/**
 * Opens the headers of a file, shard index, folder or run. Without a config the shapes tell it.
 * Throws: E_IO, E_FORMAT when there is no Wan network in it or one of another size.
 */
export function findNet(path: string, kind: WeightKind, config: WanConfig | null): FoundNet {
  const weights = openWan(path, kind);
  const found = { weights, config: config ?? wanConfigOf(weights.checkpoint, kind) };
  if (found.config.secondTime) throw new RcmError("E_ARG", `${path} is a MeanFlow network, which takes two times`, { op: "sample", want: "a network of one time" });
  return found;
}

export interface OpenOptions extends LoadOptions {
  wan: WanOptions;
  /** Network times as they are, or rounded as the public code does. */
  time: "exact" | "bf16";
  /** Streams blocks from the host; `events` as in StreamedWeights. Null: all weights on the device. */
  offload: { events: number } | null;
}

/** Loads a network for sampling. Throws: E_FORMAT naming keys that do not fit. */
export function openNet(device: Device, { weights, config }: FoundNet, o: OpenOptions): SampleNet {
  const { path } = weights.checkpoint;
  if (!o.offload) {
    const model = WanModel.create(device, config, o.wan);
    try {
      loadParams(model.params, weights.tensors, path, o);
    } catch (error) {
      model.params.flat.free();
      throw error;
    }
    return residentNet(model, o.time);
  }
  const fit = fitOf({ specs: wanParams(config) }, weights.tensors);
  const problem = describeFit(fit);
  if (problem !== "" && o.allowPartial !== true) throw new RcmError("E_FORMAT", `${path} does not fit the network: ${problem}`, { op: "weights" });
  if (problem !== "") o.onPartial?.(`${path} fits only in part: ${problem}`);
  const absent = new Set([...fit.missing, ...fit.misshaped.map((m) => m.name)]);
  const began = performance.now();
  const total = [...weights.tensors.values()].reduce((n, t) => n + t.bytes, 0);
  let done = 0;
  const read = (part: ParamSet): void => {
    for (const name of part.names) {
      const stored = weights.tensors.get(name);
      if (!stored || absent.has(name)) continue; // zero, as in a fresh set
      readStored(stored, part.tensor(name));
      done += stored.bytes;
    }
    o.onProgress?.({ done, total, seconds: (performance.now() - began) / 1000 });
  };
  return streamedNet(config, new StreamedWeights(device, config, o.wan.dtype, read, o.offload.events), o.wan, o.time);
}
