import { existsSync, readdirSync, statSync } from "node:fs";
import { extname, join } from "node:path";
import type { HostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { readSafetensors } from "../io/safetensors.ts";
import { readTorchTensors } from "../io/torch.ts";
import { checkpointWeights, listCheckpoints } from "../train/checkpoint.ts";

/** Which weights of a training run are meant. */
export type WeightKind = "ema" | "student";

/**
 * Reads network weights by their original keys from a safetensors file, a torch .pt/.pth, a checkpoint of a run, or a run
 * folder (its newest checkpoint). A `net.` prefix is removed. Throws: E_IO when there is nothing, E_FORMAT when it is no such file.
 */
export function readWeights(path: string, kind: WeightKind = "ema"): Map<string, HostTensor> {
  const file = resolveWeights(path);
  if (extname(file) === ".pt" || extname(file) === ".pth") return unprefixed(readTorchTensors(file));
  const { metadata, tensors } = readSafetensors(file);
  if (metadata.format === "rcm-checkpoint") {
    if (kind === "ema") return checkpointWeights(tensors, "student.ema");
    return checkpointWeights(tensors, [...tensors.keys()].some((n) => n.startsWith("student.master/")) ? "student.master" : "student.weights");
  }
  return unprefixed(tensors);
}

/** The file behind a path: itself, or the newest checkpoint of a run folder. */
export function resolveWeights(path: string): string {
  if (!existsSync(path)) throw new RcmError("E_IO", `${path} does not exist`, { op: "weights" });
  if (!statSync(path).isDirectory()) return path;
  const found = listCheckpoints(join(path, "checkpoints"));
  if (found.length > 0) return found[found.length - 1].path;
  throw new RcmError("E_IO", `${path} holds no checkpoint`, { op: "weights", got: readdirSync(path).slice(0, 5) });
}

function unprefixed(tensors: Map<string, HostTensor>): Map<string, HostTensor> {
  if (![...tensors.keys()].every((n) => n.startsWith("net."))) return tensors;
  return new Map([...tensors].map(([n, t]) => [n.slice(4), t]));
}
