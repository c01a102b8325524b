import { existsSync, readdirSync, statSync } from "node:fs";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { RcmError } from "../error.ts";
import { readAt, withFile, writeTar } from "../io/tar.ts";
import { decode, fileKey, indexShard, KINDS, listShards, type Entry, type Kind } from "../io/webdataset.ts";

export interface MergeOptions {
  /** Shards, or folders of shards. */
  inputs: readonly string[];
  out: string;
  perShard: number;
  /** `shard_%06d.tar`, or `shard-%05d.tar` as the public merge tool names them. */
  naming: "underscore" | "dash";
  /** Gives the samples new keys 0, 1, 2, ... instead of rejecting different samples with the same key. */
  renumber: boolean;
  /** Decodes every member before it is copied. */
  check: boolean;
  onShard?: (done: number, total: number) => void;
}

export interface MergeSummary {
  out: string;
  samples: number;
  shards: number;
  /** Samples omitted as identical to an earlier one with the same key. */
  duplicates: number;
}

/** The shards of files and folders, in the order given. Throws: E_IO, E_FORMAT for a folder without shards. */
export function shardPaths(inputs: readonly string[]): string[] {
  return inputs.flatMap((path) => {
    if (!existsSync(path)) throw new RcmError("E_IO", `${path} does not exist`, { op: "shards" });
    return statSync(path).isDirectory() ? listShards(path) : [path];
  });
}

function pathOf({ out, naming }: MergeOptions, n: number): string {
  const name = naming === "dash" ? `shard-${String(n).padStart(5, "0")}` : `shard_${String(n).padStart(6, "0")}`;
  return join(out, `${name}.tar`);
}

const readMember = (entry: Entry, kind: Kind): Uint8Array =>
  withFile(entry.path, (fd) => readAt(fd, entry.path, entry[kind].start, entry[kind].size));

function digest(entry: Entry): string {
  const hash = createHash("sha256");
  for (const kind of KINDS) hash.update(readMember(entry, kind));
  return hash.digest("hex");
}

/**
 * Copies samples of many shards into new ones of `perShard`, holding one sample in memory. Identical samples with the
 * same key are copied once.
 * Throws: E_FORMAT naming shard and member; E_STATE for different samples with the same key, or when the output folder
 * already has shards.
 */
export function mergeShards(o: MergeOptions): MergeSummary {
  if (existsSync(o.out) && readdirSync(o.out).some((n) => /^shard[_-]\d+\.tar$/.test(n))) {
    throw new RcmError("E_STATE", `${o.out} already holds shards; use another folder`, { op: "merge" });
  }
  const seen = new Map<string, Entry>();
  const kept: Entry[] = [];
  let duplicates = 0;
  for (const entry of shardPaths(o.inputs).flatMap(indexShard)) {
    const before = seen.get(entry.key);
    if (!before) seen.set(entry.key, entry);
    else if (digest(before) === digest(entry)) {
      duplicates++;
      continue;
    } else if (!o.renumber) {
      const both = `${before.path} and ${entry.path} hold different samples of key ${entry.key}`;
      throw new RcmError("E_STATE", `${both}; give --renumber to keep both`, { op: "merge" });
    }
    kept.push(entry);
  }
  const shards = Math.ceil(kept.length / o.perShard);
  for (let n = 0; n < shards; n++) {
    const part = kept.slice(n * o.perShard, (n + 1) * o.perShard);
    writeTar(pathOf(o, n), membersOf(part, n * o.perShard, o));
    o.onShard?.(Math.min(kept.length, (n + 1) * o.perShard), kept.length);
  }
  return { out: o.out, samples: kept.length, shards, duplicates };
}

/** The tar members of one output shard; `first` is the number of its first sample. */
function* membersOf(part: readonly Entry[], first: number, o: MergeOptions): Generator<[string, Uint8Array]> {
  for (const [i, entry] of part.entries()) {
    const key = o.renumber ? fileKey(String(first + i)) : entry.key;
    if (o.check) withFile(entry.path, (fd) => decode(fd, entry));
    for (const kind of KINDS) yield [`${key}.${kind}`, readMember(entry, kind)];
  }
}
