import { existsSync, readdirSync, statSync } from "node:fs";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { RcmError } from "../error.ts";
import { readAt, withFile, writeTar } from "../io/tar.ts";
import { decode, fileKey, indexShard, KINDS, listShards, type Entry } from "../io/webdataset.ts";

export interface MergeOptions {
  /** Shards, or folders of shards. */
  inputs: readonly string[];
  out: string;
  perShard: number;
  /** `shard_%06d.tar`, or `shard-%05d.tar` as the public merge tool names them. */
  naming: "underscore" | "dash";
  /** Gives the samples new keys 0, 1, 2, ... instead of refusing two different samples of one key. */
  renumber: boolean;
  /** Decodes every member before it is copied. */
  check: boolean;
  onShard?: (done: number, total: number) => void;
}

export interface MergeSummary {
  out: string;
  samples: number;
  shards: number;
  /** Samples left out because an equal one of the same key came before. */
  duplicates: number;
}

/** Shards behind paths, in the order given. Throws: E_IO, E_FORMAT when a folder holds none. */
export function shardPaths(inputs: readonly string[]): string[] {
  return inputs.flatMap((path) => {
    if (!existsSync(path)) throw new RcmError("E_IO", `${path} does not exist`, { op: "shards" });
    return statSync(path).isDirectory() ? listShards(path) : [path];
  });
}

const nameOf = (o: MergeOptions, n: number): string =>
  join(
    o.out,
    o.naming === "dash" ? `shard-${String(n).padStart(5, "0")}.tar` : `shard_${String(n).padStart(6, "0")}.tar`,
  );

function digest(entry: Entry): string {
  const hash = createHash("sha256");
  withFile(
    entry.path,
    (fd) => KINDS.forEach((k) => hash.update(readAt(fd, entry.path, entry[k].start, entry[k].size))),
  );
  return hash.digest("hex");
}

/**
 * Copies samples of many shards into new ones of `perShard`, one sample in memory at a time; equal samples of one key are taken once.
 * Throws: E_FORMAT naming shard and member; E_STATE for two different samples of one key, or an output folder that holds shards.
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
      throw new RcmError(
        "E_STATE",
        `${before.path} and ${entry.path} hold different samples of key ${entry.key}; give --renumber to keep both`,
        { op: "merge" },
      );
    }
    kept.push(entry);
  }
  const shards = Math.ceil(kept.length / o.perShard);
  for (let n = 0; n < shards; n++) {
    const part = kept.slice(n * o.perShard, (n + 1) * o.perShard);
    writeTar(
      nameOf(o, n),
      (function*() {
        for (const [i, entry] of part.entries()) {
          const key = o.renumber ? fileKey(String(n * o.perShard + i)) : entry.key;
          if (o.check) withFile(entry.path, (fd) => decode(fd, entry));
          for (const kind of KINDS) {
            yield [
              `${key}.${kind}`,
              withFile(entry.path, (fd) => readAt(fd, entry.path, entry[kind].start, entry[kind].size)),
            ] as [string, Uint8Array];
          }
        }
      })(),
    );
    o.onShard?.(Math.min(kept.length, (n + 1) * o.perShard), kept.length);
  }
  return { out: o.out, samples: kept.length, shards, duplicates };
}
