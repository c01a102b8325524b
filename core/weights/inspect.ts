import { numel } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { openCheckpoint, type Checkpoint, type CheckpointFormat } from "../io/checkpoint.ts";
import { presetOf, VAES } from "../models/families.ts";
import type { NetSpec } from "../models/family.ts";
import type { WeightKind } from "../models/layout.ts";
import { encoderIn } from "./encoder.ts";
import { fitOf, type Fit } from "./fit.ts";
import { filesOf, networkIn, prefixesIn, resolveWeights, specOf } from "./resolve.ts";
import { vaeIn } from "./vae.ts";

/** A model that accompanies a diffusion network. */
export interface Companion {
  /** Title of its family. */
  kind: string;
  /** Readable description of its sizes. */
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
  /** Prefixes of the networks found, and the first keys. */
  networks: string[];
  keys: string[];
  /**
   * Fields of the network that `kind` selects; null if there is none or its size cannot be inferred (`problem` says
   * why).
   */
  layout: string | null;
  prefix: string | null;
  config: NetSpec["config"] | null;
  ffnDim: number | null;
  latent: NetSpec["latent"] | null;
  text: NetSpec["text"] | null;
  /** Name of the preset with these sizes. */
  preset: string | null;
  fit: Fit | null;
  /** The text encoder or autoencoder in it, when it holds no diffusion network. */
  companion: Companion | null;
  problem: string | null;
}

/** The text encoder or autoencoder in a checkpoint; null if it is neither. Throws: E_FORMAT if it is incomplete. */
function companionIn(checkpoint: Checkpoint): Companion | null {
  const encoder = encoderIn(checkpoint);
  if (encoder) return { kind: encoder.family.title, size: encoder.family.describe(encoder.config) };
  const { tensors, path } = checkpoint;
  const family = Object.values(VAES).find((f) => f.recognises(tensors.keys()));
  return family ? { kind: family.title, size: family.describe(vaeIn(path, family).config) } : null;
}

/**
 * Identifies a checkpoint by its headers and compares it with the network it seems to hold. `verify` also reads the
 * data and checks checksums where the format has them. Throws: E_IO, E_FORMAT when it cannot be opened.
 */
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
    path: checkpoint.path,
    format: checkpoint.format,
    files: filesOf(checkpoint).length,
    tensors: keys.length,
    parameters,
    bytes: checkpoint.bytes,
    dtypes,
    metadata: checkpoint.metadata,
    networks: prefixesIn(checkpoint),
    keys: keys.slice(0, 5),
    layout: null,
    prefix: null,
    config: null,
    ffnDim: null,
    latent: null,
    text: null,
    preset: null,
    fit: null,
    companion: null,
    problem: null,
  };
  try {
    if (report.networks.length === 0) report.companion = companionIn(checkpoint);
    if (report.companion) return report;
    const found = networkIn(checkpoint, kind);
    Object.assign(report, { layout: found.layout.name, prefix: found.prefix });
    const { family, config, latent, text } = specOf(found);
    Object.assign(report, { config, ffnDim: family.ffnDim(config), latent, text, preset: presetOf(family, config) });
    report.fit = fitOf({ specs: family.params(config) }, found.tensors);
  } catch (error) {
    if (!(error instanceof RcmError)) throw error;
    report.problem = error.message;
  }
  return report;
}
