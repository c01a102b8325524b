import { existsSync } from "node:fs";
import { join } from "node:path";
import { isFloat, type DType } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { openCheckpoint, readStored, type Checkpoint, type Stored } from "../io/checkpoint.ts";
import { ENCODERS } from "../models/families.ts";
import type { EncoderFamily, TextEncoderNet } from "../models/text_encoder.ts";
import type { Device } from "../tensor.ts";

export interface EncoderLoadReport {
  layout: string;
  tensors: number;
  /** Keys that the encoder does not use. */
  unexpected: string[];
  bytes: number;
  seconds: number;
}

const list = (names: string[]): string =>
  names.length === 0
    ? "none"
    : `${names.slice(0, 5).join(", ")}${names.length > 5 ? ` and ${names.length - 5} more` : ""}`;

/** A diffusers folder keeps its encoder in a subfolder. */
export function encoderFolder(path: string): string {
  const inner = join(path, "text_encoder");
  return existsSync(join(path, "model_index.json")) && existsSync(inner) ? inner : path;
}

/** A text encoder found in a checkpoint. */
export interface FoundEncoder {
  family: EncoderFamily;
  layout: string;
  config: { dim: number; vocab: number };
  /** Every parameter and where it is stored. */
  plan: { name: string; stored: Stored }[];
  /** Keys that the encoder does not use. */
  unexpected: string[];
}

/**
 * Finds the text encoder in a checkpoint by its headers; null if it holds none.
 * Throws: E_FORMAT naming missing keys, wrong shapes and dtypes.
 */
export function encoderIn({ path, tensors }: Checkpoint): FoundEncoder | null {
  for (const family of Object.values(ENCODERS)) {
    const keys = family.keysIn(tensors.keys());
    if (!keys) continue;
    const { layout, names, unexpected } = keys;
    const op = family.title;
    const config = family.configOf(
      new Map([...names].map(([name, key]) => [name, { shape: tensors.get(key)?.shape ?? [] }])),
      path,
    );
    const specs = family.params(config);
    const missing = specs.filter((s) => !names.has(s.name)).map((s) => s.name);
    if (missing.length > 0) {
      throw new RcmError("E_FORMAT", `${path}: the ${op} encoder lacks ${list(missing)}`, {
        op,
        want: specs.length,
        got: specs.length - missing.length,
      });
    }
    const plan = specs.map(({ name, shape }) => {
      const stored = tensors.get(names.get(name) ?? "");
      if (!stored || stored.shape.length !== shape.length || stored.shape.some((d, i) => d !== shape[i])) {
        throw new RcmError("E_FORMAT", `${path}: ${names.get(name)} has the wrong shape`, {
          op,
          want: shape,
          got: stored?.shape,
        });
      }
      if (!isFloat(stored.dtype)) {
        throw new RcmError(
          "E_FORMAT",
          `${path}: ${stored.name} is stored as ${stored.dtype}; give the bf16 or f16 file`,
          { op, want: "f32|bf16|f16|f64", got: stored.dtype },
        );
      }
      return { name, stored };
    });
    return { family, layout, config, plan, unexpected };
  }
  return null;
}

/**
 * Builds the encoder that a weight file or folder holds and streams it to the device, tensor by tensor, in any public
 * layout.
 * Throws: E_FORMAT naming missing keys and wrong shapes; E_IO.
 */
export function loadEncoder(
  device: Device,
  path: string,
  o: { dtype: DType; residual?: DType; onProgress?: (done: number, total: number) => void },
): { encoder: TextEncoderNet; report: EncoderLoadReport } {
  const began = performance.now();
  const checkpoint = openCheckpoint(encoderFolder(path));
  // Check everything before allocating memory.
  const found = encoderIn(checkpoint);
  if (!found) {
    const known = Object.values(ENCODERS)
      .map((e) => e.title)
      .join(" or ");
    throw new RcmError("E_FORMAT", `${path}: no ${known} encoder: the names are of no public layout`, {
      op: "text encoder",
      got: [...checkpoint.tensors.keys()].slice(0, 4),
    });
  }
  const { family, layout, config, plan, unexpected } = found;
  const total = plan.reduce((n, { stored }) => n + stored.bytes, 0);
  const encoder = family.create(device, config, o);
  try {
    let bytes = 0;
    for (const { name, stored } of plan) {
      readStored(stored, encoder.params.tensor(name));
      bytes += stored.bytes;
      o.onProgress?.(bytes, total);
    }
    device.sync();
    return {
      encoder,
      report: { layout, tensors: plan.length, unexpected, bytes, seconds: (performance.now() - began) / 1000 },
    };
  } catch (error) {
    encoder[Symbol.dispose]();
    throw error;
  }
}
