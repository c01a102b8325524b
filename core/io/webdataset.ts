import { isUtf8 } from "node:buffer";
import { existsSync, readdirSync } from "node:fs";
import { basename, join } from "node:path";
import { crc32 } from "node:zlib";
import type { HostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { Rng, streamOf } from "../rng.ts";
import { members, readAt, withFile, writeTar, type TarMember } from "./tar.ts";
import { readTorchTensor, writeTorch } from "./torch.ts";

/** Latent data sets: tar shards; a sample is `{key}.latent.pt`, `{key}.embed.pt` and `{key}.prompt.txt`. */

export interface Sample {
  key: string;
  latent: HostTensor;
  embed: HostTensor;
  prompt: string;
}

export const KINDS = ["latent.pt", "embed.pt", "prompt.txt"] as const;
export type Kind = (typeof KINDS)[number];

/** Location of a sample, to read it without scanning its shard. */
export type Entry = { path: string; key: string } & Record<Kind, TarMember>;

/** Bytes of decoded samples a stream keeps, and overhead of a cached sample besides its tensors. */
const CACHE_LIMIT = 512 * 1024 ** 2;
const CACHE_OVERHEAD = 512;

/** Key and kind of a member `{key}.latent.pt` (or `{key}/latent.pt`); null for other members. */
export function sampleMember(name: string): { key: string; kind: Kind } | null {
  const kind = KINDS.find((k) => name.endsWith(`.${k}`) || name.endsWith(`/${k}`));
  return kind === undefined ? null : { key: name.slice(0, -kind.length - 1), kind };
}

/**
 * The samples of a shard from its headers alone. Throws: E_IO, E_FORMAT naming what is damaged, duplicated or missing.
 */
export function indexShard(path: string): Entry[] {
  const found = new Map<string, Partial<Record<Kind, TarMember>>>();
  for (const member of withFile(path, (fd, size) => [...members(fd, path, size)])) {
    const its = sampleMember(member.name);
    if (its === null) continue;
    const { key, kind } = its;
    const parts = found.get(key) ?? {};
    if (parts[kind])
      throw new RcmError("E_FORMAT", `${path} holds ${member.name} twice (byte ${member.offset})`, {
        op: "webdataset",
      });
    found.set(key, { ...parts, [kind]: member });
  }
  return Array.from(found, ([key, parts]) => {
    const lacking = KINDS.find((kind) => !parts[kind]);
    if (lacking !== undefined) {
      const at = Math.min(...Object.values(parts).map((m) => m.offset));
      throw new RcmError("E_FORMAT", `a sample of ${path} (byte ${at}) lacks its member ${key}.${lacking}`, {
        op: "webdataset",
      });
    }
    return { path, key, ...(parts as Record<Kind, TarMember>) };
  });
}

function decodeText(bytes: Uint8Array, where: string): string {
  if (!isUtf8(bytes)) throw new RcmError("E_FORMAT", `a prompt is not UTF-8: ${where}`, { op: "webdataset" });
  return Buffer.from(bytes).toString("utf8");
}

/** Reads one sample of an open shard. Throws: E_FORMAT naming the member. */
export function decode(fd: number, entry: Entry): Sample {
  const part = <T>(kind: Kind, read: (bytes: Uint8Array, where: string) => T): T => {
    const { name, offset, start, size } = entry[kind];
    return read(readAt(fd, entry.path, start, size), `${entry.path}: ${name} (byte ${offset})`);
  };
  return {
    key: entry.key,
    latent: part("latent.pt", readTorchTensor),
    embed: part("embed.pt", readTorchTensor),
    prompt: part("prompt.txt", decodeText),
  };
}

/**
 * Reads every sample of a shard in order; members with other suffixes are ignored.
 * Throws: E_IO, or E_FORMAT naming shard, member and byte if something is damaged or missing.
 */
export function readShard(path: string): Sample[] {
  const entries = indexShard(path);
  return withFile(path, (fd) => entries.map((entry) => decode(fd, entry)));
}

/**
 * Lists a data set's shards (`shard_000000.tar` or `shard-00000.tar`) by number. Throws: E_IO; E_FORMAT if there are
 * none.
 */
export function listShards(dir: string): string[] {
  let names: string[];
  try {
    names = readdirSync(dir).filter((name) => /^shard[_-]\d+\.tar$/.test(name));
  } catch (cause) {
    throw new RcmError(
      "E_IO",
      `cannot list ${dir}: ${(cause as Error).message}; give the folder that holds shard_000000.tar`,
      { op: "webdataset", cause },
    );
  }
  if (names.length === 0)
    throw new RcmError("E_FORMAT", `${dir} holds no shard_NNNNNN.tar; build the data set first or correct data.path`, {
      op: "webdataset",
    });
  const number = (name: string): number => Number(name.slice(6, -4));
  return names.sort((a, b) => number(a) - number(b) || (a < b ? -1 : 1)).map((name) => join(dir, name));
}

export function fileKey(key: string): string {
  const padded = /^\d+$/.test(key) ? key.padStart(9, "0") : key;
  if (!/^[\w/-]+$/.test(padded))
    throw new RcmError("E_ARG", "a sample key is letters, digits, _, - and / only", { op: "writeShards", got: key });
  return padded;
}

/** The encoded members of a sample. */
export function* entriesOf(sample: Sample): Generator<[string, Uint8Array]> {
  const key = fileKey(sample.key);
  yield [`${key}.latent.pt`, writeTorch(sample.latent)];
  yield [`${key}.embed.pt`, writeTorch(sample.embed)];
  yield [`${key}.prompt.txt`, new TextEncoder().encode(sample.prompt)];
}

/** `shard_%06d.tar` of a folder. */
export const shardPath = (dir: string, number: number): string =>
  join(dir, `shard_${String(number).padStart(6, "0")}.tar`);

/** Samples of the leading intact shards; only the last may hold fewer than perShard. */
function keptEntries(dir: string, perShard: number): Entry[] {
  let kept: Entry[] = [];
  try {
    for (let number = 0; existsSync(shardPath(dir, number)); number++) {
      const entries = indexShard(shardPath(dir, number));
      if (kept.length % perShard !== 0 || entries.length > perShard)
        throw new RcmError(
          "E_STATE",
          `${dir} was written with another number of samples per shard; use that number or another folder`,
          { op: "writeShards", got: perShard },
        );
      kept = kept.concat(entries);
    }
  } catch (error) {
    if (!(error instanceof RcmError && error.code === "E_FORMAT")) throw error; // a damaged shard is rewritten
  }
  return kept;
}

function* skipKept(samples: Iterable<Sample>, kept: Entry[]): Generator<Sample> {
  let i = 0;
  for (const sample of samples) {
    const known = kept[i++];
    if (!known) yield sample;
    else if (fileKey(sample.key) !== known.key)
      throw new RcmError("E_STATE", `${known.path} holds other samples; use another folder`, {
        op: "writeShards",
        want: fileKey(sample.key),
        got: known.key,
      });
  }
}

/**
 * Writes samples to shards, one sample in memory at a time, and returns their number; intact shards of an earlier run
 * are kept. A function as source is called with the number of kept samples and yields the remaining ones.
 * Throws: E_STATE if the folder holds other samples or another shard size, E_ARG for a bad key, E_IO.
 */
export function writeShards(
  dir: string,
  samples: Iterable<Sample> | ((kept: number) => Iterable<Sample>),
  perShard = 256,
  onShard?: (path: string, total: number) => void,
): number {
  if (!Number.isSafeInteger(perShard) || perShard < 1)
    throw new RcmError("E_ARG", "a shard holds at least one sample", { op: "writeShards", got: perShard });
  const kept = keptEntries(dir, perShard);
  const source = (typeof samples === "function" ? samples(kept.length) : skipKept(samples, kept))[Symbol.iterator]();
  let total = kept.length;
  let item = source.next();
  function* shard(started: Entry[]): Generator<[string, Uint8Array]> {
    for (const entry of started) yield* entriesOf(withFile(entry.path, (fd) => decode(fd, entry)));
    for (;;) {
      yield* entriesOf(item.value);
      if (++total % perShard === 0 || (item = source.next()).done) return;
    }
  }
  while (!item.done) {
    const base = total - (total % perShard);
    const path = shardPath(dir, base / perShard);
    writeTar(path, shard(kept.slice(base)));
    onShard?.(path, total);
    if (!item.done) item = source.next();
  }
  return total;
}

export type StreamOptions = { paths: string[]; rank?: number; world?: number; seed: number; shuffleBuffer: number };

/** A position in a stream, as plain JSON; `data` is a fingerprint of the rank's shard names and keys. */
export type StreamPosition = Required<Omit<StreamOptions, "paths">> & { epoch: number; index: number; data: number };

/** Shuffles with a window: draws each item at random from the next ones. A window of all items is a full shuffle. */
function windowShuffle<T>(items: T[], size: number, rng: Rng): T[] {
  const window = items.slice(0, size);
  return items.map((_, i) => {
    const j = rng.below(window.length);
    const drawn = window[j];
    const filler = i + size < items.length ? items[i + size] : window.pop()!;
    if (j < window.length) window[j] = filler;
    return drawn;
  });
}

/**
 * An endless stream of samples, each exactly once per epoch over all ranks; samples are cached, so they must not be
 * changed. Ranks take every world-th shard, or every world-th sample if there are fewer shards than ranks; the order
 * depends only on (seed, epoch).
 */
export class ShardStream {
  private at = { epoch: 0, index: 0 };
  private order: Entry[] | undefined;
  private shards: Entry[][] | undefined;
  private data = 0;
  private readonly cache = new Map<Entry, Sample>();
  private cachedBytes = 0;
  private readonly options: Required<StreamOptions>;
  private readonly byShard: boolean;

  /** Throws: E_ARG for options out of range. */
  constructor(options: StreamOptions) {
    const o = (this.options = { ...options, rank: options.rank ?? 0, world: options.world ?? 1 });
    this.byShard = o.paths.length >= o.world;
    const whole = [o.rank, o.world, o.seed, o.shuffleBuffer].every((n) => Number.isSafeInteger(n) && n >= 0);
    if (!whole || o.rank >= o.world || o.world > 1024 || o.shuffleBuffer < 1 || o.paths.length === 0)
      throw new RcmError("E_ARG", "a stream needs paths, rank < world <= 1024, a whole seed and shuffleBuffer >= 1", {
        op: "ShardStream",
        got: { ...o, paths: o.paths.length },
      });
  }

  /** The next sample; decoded on first use. Throws: E_IO or E_FORMAT if a shard cannot be used. */
  next(): Sample {
    let order = (this.order ??= this.orderOf(this.at.epoch));
    if (this.at.index >= order.length) {
      order = this.order = this.orderOf(this.at.epoch + 1);
      this.at = { epoch: this.at.epoch + 1, index: 0 };
    }
    const entry = order[this.at.index];
    const sample = this.cache.get(entry) ?? this.load(entry);
    this.at.index++;
    return sample;
  }

  position(): StreamPosition {
    const { seed, rank, world, shuffleBuffer } = this.options;
    this.index();
    return { ...this.at, seed, rank, world, shuffleBuffer, data: this.data };
  }

  /** Seeks to a position of an equal stream. Throws: E_STATE if it belongs to another stream or data set. */
  restore(position: StreamPosition): void {
    const { epoch, index } = position;
    for (const [field, expected] of Object.entries({ ...this.position(), epoch, index })) {
      const got = position[field as keyof StreamPosition];
      if (expected !== got || !Number.isSafeInteger(got) || got < 0)
        throw new RcmError("E_STATE", `the data position does not fit this stream: its ${field} differs`, {
          op: "ShardStream",
          want: expected,
          got,
        });
    }
    const order = this.orderOf(epoch);
    if (index > order.length)
      throw new RcmError("E_STATE", "the data position is past its epoch", {
        op: "ShardStream",
        want: `<= ${order.length}`,
        got: index,
      });
    [this.order, this.at] = [order, { epoch, index }];
  }

  /** The entries of this rank's shards, from their headers alone. */
  private index(): Entry[][] {
    if (this.shards) return this.shards;
    const { paths, rank, world } = this.options;
    this.shards = paths.filter((_, i) => !this.byShard || i % world === rank).map(indexShard);
    this.data = this.shards.flat().reduce((crc, entry) => crc32(`${basename(entry.path)}/${entry.key}\n`, crc), 0);
    return this.shards;
  }

  private orderOf(epoch: number): Entry[] {
    const { rank, world, seed, shuffleBuffer } = this.options;
    const rng = new Rng(seed, streamOf({ use: "data", step: epoch, sample: this.byShard ? rank : 0 }));
    const shards = windowShuffle(this.index(), this.index().length, rng);
    const all = windowShuffle(shards.flat(), shuffleBuffer, rng);
    const mine = this.byShard ? all : all.filter((_, i) => i % world === rank);
    if (mine.length === 0)
      throw new RcmError("E_FORMAT", `the shards hold too few samples for ${world} ranks: rank ${rank} has none`, {
        op: "ShardStream",
      });
    return mine;
  }

  private load(entry: Entry): Sample {
    const sample = withFile(entry.path, (fd) => decode(fd, entry));
    this.cachedBytes += sample.latent.data.buffer.byteLength + sample.embed.data.buffer.byteLength + CACHE_OVERHEAD;
    if (this.cachedBytes <= CACHE_LIMIT) this.cache.set(entry, sample);
    return sample;
  }
}
