import { RcmError } from "../error.ts";
import { readStored } from "../io/checkpoint.ts";
import type { NetOptions, NetSpec } from "../models/family.ts";
import type { WeightKind } from "../models/layout.ts";
import type { ParamSet } from "../nn/params.ts";
import type { Device } from "../tensor.ts";
import { describeFit, fitOf, loadFound, type LoadOptions } from "../weights/fit.ts";
import { openNetwork, specOf, type FoundNetwork } from "../weights/resolve.ts";
import { residentNet, streamedNet, type SampleNet } from "./net.ts";
import { Network } from "./network.ts";
import { StreamedWeights } from "./streamed.ts";

/** A network in a file, known by its headers. */
export interface FoundNet {
  weights: FoundNetwork;
  spec: NetSpec;
}

/**
 * Opens the headers of a file, shard index, folder or run. Without a spec the architecture follows from the shapes.
 * Throws: E_IO, E_FORMAT when it has no network or one of another size.
 */
export function findNet(path: string, kind: WeightKind, spec: NetSpec | null): FoundNet {
  const weights = openNetwork(path, kind);
  return { weights, spec: spec ?? specOf(weights) };
}

export interface OpenOptions extends LoadOptions {
  net: NetOptions;
  /** Streams blocks from the host; `events` as in StreamedWeights. Null: all weights on the device. */
  offload: { events: number } | null;
}

/** Loads a network for sampling. Throws: E_FORMAT naming keys that do not fit. */
export function openNet(device: Device, { weights, spec }: FoundNet, o: OpenOptions): SampleNet {
  const { path } = weights.checkpoint;
  if (!o.offload) {
    const network = Network.create(device, spec, o.net);
    try {
      loadFound(network.params, weights, o);
    } catch (error) {
      network[Symbol.dispose]();
      throw error;
    }
    return residentNet(network);
  }
  const specs = spec.family.params(spec.config);
  const fit = fitOf({ specs }, weights.tensors, spec.family.optional);
  const problem = describeFit(fit);
  if (problem !== "" && o.allowPartial !== true) {
    throw new RcmError("E_FORMAT", `${path} does not fit the network: ${problem}`, { op: "weights" });
  }
  if (problem !== "") o.onPartial?.(`${path} fits only in part: ${problem}`);
  const absent = new Set([...fit.missing, ...fit.misshaped.map((m) => m.name)]);
  const began = performance.now();
  const total = [...weights.tensors.values()].reduce((n, t) => n + t.bytes, 0);
  let done = 0;
  const read = (part: ParamSet): void => {
    for (const name of part.names) {
      const stored = weights.tensors.get(name);
      if (!stored || absent.has(name)) continue; // stays zero
      readStored(stored, part.tensor(name));
      done += stored.bytes;
    }
    o.onProgress?.({ done, total, seconds: (performance.now() - began) / 1000 });
  };
  return streamedNet(spec, new StreamedWeights(device, specs, o.net.dtype, read, o.offload.events), o.net);
}
