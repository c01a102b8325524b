import { numel } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { openCheckpoint, type Checkpoint, type CheckpointFormat } from "../io/checkpoint.ts";
import { WAN_PRESETS, type WanConfig } from "../models/wan/config.ts";
import { wanParams } from "../models/wan/keys.ts";
import { networksIn, type WanLayout, type WeightKind } from "../models/wan/layouts.ts";
import { umt5In } from "./umt5.ts";
import { fitOf, wanConfigOf, type Fit } from "./load.ts";
import { filesOf, resolveWeights, wanIn } from "./open.ts";
import { vaeIn } from "./vae.ts";

/** A file that goes beside a network. */
export interface Companion {
  kind: "wan-vae" | "umt5";
  /** Sizes in words. */
  size: string;
}

export interface WeightsReport {
  path: string;
  format: CheckpointFormat;
  files: number;
  tensors: number;
  parameters: number;
  bytes: number;
  /** Number of tensors of each dtype. */
  dtypes: Record<string, number>;
  metadata: Record<string, string>;
  /** Prefixes of the networks found; the first tensors' names when there are none. */
  networks: string[];
  keys: string[];
  /** Of the network that `kind` means; null when there is none, or it does not say how large it is (then `problem` says why). */
  layout: WanLayout | null;
  prefix: string | null;
  config: WanConfig | null;
  /** Name of the published network with these sizes. */
  preset: string | null;
  fit: Fit | null;
  /** What it is instead, when it holds no diffusion network. */
  companion: Companion | null;
  problem: string | null;
}

/** The text encoder or autoencoder in a checkpoint; null when it is neither. Throws: E_FORMAT when it is one and incomplete. */
function companionIn(checkpoint: Checkpoint): Companion | null {
  const encoder = umt5In(checkpoint);
  if (encoder) {
    const { dim, layers, heads, vocab } = encoder.config;
    return { kind: "umt5", size: `width ${dim}, ${layers} layers, ${heads} heads, vocabulary of ${vocab}` };
  }
  const { tensors, path } = checkpoint;
  if (![...tensors.keys()].some((k) => /^(encoder\.conv1|encoder\.conv_in|decoder\.conv1|decoder\.conv_in)\./.test(k))) return null;
  return { kind: "wan-vae", size: `width ${vaeIn(path).config.dim}` };
}

/** Reads what a checkpoint is from its headers, and compares it with the network it seems to be; `verify` reads the data and compares checksums where the format has them. Throws: E_IO, E_FORMAT when it cannot be opened. */
export function inspectWeights(path: string, kind: WeightKind = "ema", { verify = false } = {}): WeightsReport {
  const checkpoint = openCheckpoint(resolveWeights(path), { verify });
  const keys = [...checkpoint.tensors.keys()];
  const dtypes: Record<string, number> = {};
  let parameters = 0;
  for (const t of checkpoint.tensors.values()) {
    dtypes[t.dtype] = (dtypes[t.dtype] ?? 0) + 1;
    parameters += numel(t.shape);
  }
  const report: WeightsReport = {
    path: checkpoint.path, format: checkpoint.format, files: filesOf(checkpoint).length, tensors: keys.length, parameters, bytes: checkpoint.bytes, dtypes, metadata: checkpoint.metadata,
    networks: networksIn(keys).map((n) => n.prefix), keys: keys.slice(0, 5), layout: null, prefix: null, config: null, preset: null, fit: null, companion: null, problem: null,
  };
  try {
    if (report.networks.length === 0) report.companion = companionIn(checkpoint);
    if (report.companion) return report;
    const { layout, prefix, tensors } = wanIn(checkpoint, kind);
    Object.assign(report, { layout, prefix });
    const config = wanConfigOf(checkpoint, kind);
    report.config = config;
    report.preset = Object.entries(WAN_PRESETS).find(([, c]) => c.dim === config.dim && c.layers === config.layers && c.ffnDim === config.ffnDim && c.inDim === config.inDim)?.[0] ?? null;
    report.fit = fitOf({ specs: wanParams(config) }, tensors);
  } catch (error) {
    if (!(error instanceof RcmError)) throw error;
    report.problem = error.message;
  }
  return report;
}
