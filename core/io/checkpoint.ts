import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { RcmError } from "../error.ts";
import { DCP_METADATA, openDcp } from "./dcp.ts";
import { locateSafetensors } from "./safetensors.ts";
import { readJson, withSource } from "./source.ts";
import {
  isSharded,
  readHost,
  readStored,
  storedTensor,
  type ShardedTensor,
  type Stored,
  type StoredTensor,
} from "./stored.ts";
import { locateTorch, type TorchTree, type TorchWindow } from "./torch_read.ts";

export { isSharded, readHost, readStored, type ShardedTensor, type Stored, type StoredTensor };

export type CheckpointFormat = "safetensors" | "torch" | "torch-legacy" | "dcp";

/** The index of a checkpoint; the data stay in the files. */
export interface Checkpoint {
  /** File or folder that was opened. */
  path: string;
  format: CheckpointFormat;
  tensors: ReadonlyMap<string, Stored>;
  metadata: Record<string, string>;
  /** Bytes of all tensors. */
  bytes: number;
}

const bad = (message: string, got?: unknown, want?: unknown): RcmError =>
  new RcmError("E_FORMAT", message, { op: "checkpoint", got, want });

/**
 * Opens a checkpoint by its headers alone: a safetensors or torch file (zip or legacy, distinguished by content), a
 * `*.safetensors.index.json`, or a folder (diffusers, sharded safetensors, torch distributed checkpoint). `verify` also
 * reads all data of torch zips and compares their checksums; the other formats have none. Throws: E_IO, E_FORMAT.
 */
export function openCheckpoint(path: string, { verify = false } = {}): Checkpoint {
  const target = resolveFolder(path);
  if (isFolder(target)) return collect(target, "dcp", openDcp(target, verify), {});
  if (target.endsWith(".index.json")) return openIndex(target);
  return openFile(target, verify);
}

function openFile(path: string, verify = false): Checkpoint {
  return withSource(path, (source) => {
    if (isTorch(source.read(0, Math.min(9, source.size)))) {
      const { format, tree } = locateTorch(source, { verify });
      return collect(path, format, flatten(tree, path).map(([name, w]) => storedTensor(name, path, w)), {});
    }
    const { metadata, entries } = locateSafetensors(source);
    return collect(path, "safetensors", entries.map((e) => storedTensor(e.name, path, e)), metadata);
  });
}

/** A zip, or a pickle; a safetensors header may begin with the same byte, but then its JSON opens at byte 8. */
const isTorch = (head: Uint8Array): boolean =>
  (head[0] === 0x50 && head[1] === 0x4b && head[2] === 3 && head[3] === 4) ||
  (head[0] === 0x80 && !(head[7] === 0 && head[8] === 0x7b));

/** Shards named by an index; the union of their tensors. */
function openIndex(path: string): Checkpoint {
  const index = readJson(path);
  const map = typeof index === "object" && index !== null ? (index as Record<string, unknown>).weight_map : null;
  if (typeof map !== "object" || map === null || Array.isArray(map)) throw bad(`${path} has no weight_map`);
  const files = new Set<string>();
  for (const file of Object.values(map)) {
    if (typeof file !== "string" || file === "" || file === "." || file === ".." || /[/\\\0]/.test(file))
      throw bad(`${path} names a file outside its folder`, file);
    files.add(file);
  }
  const shards = [...files].sort().map((f) => openFile(join(dirname(path), f)));
  const whole = unionOf(path, shards);
  for (const [name, file] of Object.entries(map)) {
    const t = whole.tensors.get(name);
    if (!t || isSharded(t) || t.file !== join(dirname(path), file as string))
      throw bad(`${file} lacks ${name}, which ${path} says it holds`);
  }
  return whole;
}

function unionOf(path: string, shards: Checkpoint[]): Checkpoint {
  const other = shards.find((s) => s.format !== shards[0].format);
  if (shards.length === 0 || other) throw bad(`${path} names ${other ? "shards of different formats" : "no shards"}`);
  return collect(
    path,
    shards[0].format,
    shards.flatMap((s) => [...s.tensors.values()]),
    Object.assign({}, ...shards.map((s) => s.metadata)),
  );
}

function collect(path: string, format: CheckpointFormat, list: Stored[], metadata: Record<string, string>): Checkpoint {
  const tensors = new Map<string, Stored>();
  let bytes = 0;
  for (const t of list) {
    if (tensors.has(t.name)) throw bad(`${path} holds ${t.name} twice`);
    tensors.set(t.name, t);
    bytes += t.bytes;
  }
  if (tensors.size === 0) throw bad(`${path} holds no tensors`);
  return { path, format, tensors, metadata, bytes };
}

/**
 * Tensors of nested dicts and lists under dotted names; a single wrapper such as {"state_dict": ...} adds no prefix.
 */
function flatten(tree: TorchTree<TorchWindow>, path: string): [string, TorchWindow][] {
  let top = tree;
  if (top instanceof Map && ![...top.values()].some(isWindow)) {
    const inner = [...top.values()].filter((v) => v instanceof Map);
    if (inner.length === 1) top = inner[0];
  }
  const out: [string, TorchWindow][] = [];
  const walk = (v: TorchTree<TorchWindow>, name: string): void => {
    if (v instanceof Map) for (const [key, one] of v) walk(one, name === "" ? key : `${name}.${key}`);
    else if (Array.isArray(v)) v.forEach((one, i) => walk(one, name === "" ? String(i) : `${name}.${i}`));
    else if (isWindow(v)) out.push([name === "" ? "tensor" : name, v]);
  };
  if (typeof top !== "object" || top === null) throw bad(`${path} holds no tensors`);
  walk(top, "");
  return out;
}

const isWindow = (v: TorchTree<TorchWindow>): v is TorchWindow =>
  typeof v === "object" && v !== null && !Array.isArray(v) && !(v instanceof Map);

const isFolder = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;

/**
 * Resolves a path to a file, a shard index, or the folder of a distributed checkpoint: of a diffusers folder its
 * transformer, of a training folder its newest step. Throws: E_IO when nothing is found, E_FORMAT when it is ambiguous.
 */
export function resolveFolder(path: string): string {
  if (!existsSync(path)) throw new RcmError("E_IO", `${path} does not exist`, { op: "checkpoint" });
  if (!isFolder(path)) return path;
  let names: string[];
  try {
    names = readdirSync(path).sort();
  } catch (cause) {
    throw new RcmError("E_IO", `cannot list ${path}: ${(cause as Error).message}`, { op: "checkpoint", cause });
  }
  if (names.includes(DCP_METADATA)) return path;
  if (names.includes("model_index.json") && isFolder(join(path, "transformer")))
    return resolveFolder(join(path, "transformer"));
  if (names.includes("latest_checkpoint.txt")) {
    const step = readFileSync(join(path, "latest_checkpoint.txt"), "utf8").trim();
    if (/^[\w.-]+$/.test(step) && names.includes(step.replace(/\.pt$/, "")))
      return resolveFolder(join(path, step.replace(/\.pt$/, "")));
    throw bad(`${path}: latest_checkpoint.txt names no folder next to it`, step.slice(0, 80));
  }
  if (existsSync(join(path, "checkpoints", "latest_checkpoint.txt"))) return resolveFolder(join(path, "checkpoints"));
  if (names.includes("model") && existsSync(join(path, "model", DCP_METADATA))) return join(path, "model");
  // Weights of one network: an index if present, else the only file of the preferred extension.
  for (const ending of [".safetensors.index.json", ".safetensors", ".pth", ".pt"]) {
    const found = names.filter((n) => n.endsWith(ending) && !n.startsWith("."));
    if (found.length === 1) return join(path, found[0]);
    if (found.length > 1) throw bad(`${path} holds several weight files; name one`, found.slice(0, 5));
  }
  if (isFolder(join(path, "transformer"))) return resolveFolder(join(path, "transformer"));
  throw bad(
    `${path} holds no weights`,
    names.slice(0, 5),
    "a *.safetensors.index.json, *.safetensors, *.pth, *.pt, .metadata or transformer/",
  );
}
