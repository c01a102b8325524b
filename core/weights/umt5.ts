import { existsSync } from "node:fs";
import { join } from "node:path";
import { isFloat, type DType } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { openCheckpoint, readStored, type Checkpoint, type Stored } from "../io/checkpoint.ts";
import { umt5ConfigOf, type Umt5Config } from "../models/umt5/config.ts";
import { detectUmt5Layout, umt5Keys, umt5Params, type Umt5Layout } from "../models/umt5/keys.ts";
import { Umt5Encoder } from "../models/umt5/model.ts";
import type { Device } from "../tensor.ts";

export interface EncoderLoadReport {
  layout: Umt5Layout;
  tensors: number;
  /** Keys that the encoder has no use for. */
  unexpected: string[];
  bytes: number;
  seconds: number;
}

const list = (names: string[]): string => (names.length === 0 ? "none" : `${names.slice(0, 5).join(", ")}${names.length > 5 ? ` and ${names.length - 5} more` : ""}`);

/** A diffusers folder's encoder lies in its own subfolder. */
export function encoderFolder(path: string): string {
  const inner = join(path, "text_encoder");
  return existsSync(join(path, "model_index.json")) && existsSync(inner) ? inner : path;
}

export interface Umt5In {
  layout: Umt5Layout;
  config: Umt5Config;
  /** Every parameter under Wan's name, and where it lies. */
  plan: { name: string; stored: Stored }[];
  /** Keys that the encoder has no use for. */
  unexpected: string[];
}

/** The umT5 encoder in a checkpoint, from its headers; null when the names are nobody's. Throws: E_FORMAT naming missing keys, wrong shapes and dtypes. */
export function umt5In({ path, tensors }: Checkpoint): Umt5In | null {
  const source = detectUmt5Layout(tensors.keys());
  if (!source) return null;
  const { names, unexpected } = umt5Keys(source, tensors.keys());
  const config = umt5ConfigOf(new Map([...names].map(([name, key]) => [name, tensors.get(key)?.shape ?? []])), path);
  const specs = umt5Params(config);
  const missing = specs.filter((s) => !names.has(s.name)).map((s) => s.name);
  if (missing.length > 0) throw new RcmError("E_FORMAT", `${path}: the umT5 encoder lacks ${list(missing)}`, { op: "umt5", want: specs.length, got: specs.length - missing.length });
  const plan = specs.map(({ name, shape }) => {
    const stored = tensors.get(names.get(name) as string);
    if (!stored || stored.shape.length !== shape.length || stored.shape.some((d, i) => d !== shape[i])) {
      throw new RcmError("E_FORMAT", `${path}: ${names.get(name)} has the wrong shape`, { op: "umt5", want: shape, got: stored?.shape });
    }
    if (!isFloat(stored.dtype)) throw new RcmError("E_FORMAT", `${path}: ${stored.name} is stored as ${stored.dtype}; give the bf16 or f16 file`, { op: "umt5", want: "f32|bf16|f16|f64", got: stored.dtype });
    return { name, stored };
  });
  return { layout: source.layout, config, plan, unexpected };
}

/**
 * Builds the encoder that a weight file or folder holds and streams it to the device, tensor by tensor, from Wan's or transformers' names.
 * Throws: E_FORMAT naming missing keys and wrong shapes; E_IO.
 */
export function loadUmt5(device: Device, path: string, o: { dtype: DType; residual?: DType; onProgress?: (done: number, total: number) => void }): { encoder: Umt5Encoder; report: EncoderLoadReport } {
  const began = performance.now();
  const checkpoint = openCheckpoint(encoderFolder(path));
  // Everything is checked before memory is taken.
  const found = umt5In(checkpoint);
  if (!found) throw new RcmError("E_FORMAT", `${path}: no umT5 encoder: neither Wan's nor transformers' names`, { op: "umt5", got: [...checkpoint.tensors.keys()].slice(0, 4) });
  const { layout, config, plan, unexpected } = found;
  const total = plan.reduce((n, { stored }) => n + stored.bytes, 0);
  const encoder = Umt5Encoder.create(device, config, o);
  try {
    let bytes = 0;
    for (const { name, stored } of plan) {
      readStored(stored, encoder.params.tensor(name));
      bytes += stored.bytes;
      o.onProgress?.(bytes, total);
    }
    device.lib.sync();
    return { encoder, report: { layout, tensors: plan.length, unexpected, bytes, seconds: (performance.now() - began) / 1000 } };
  } catch (error) {
    encoder[Symbol.dispose]();
    throw error;
  }
}
