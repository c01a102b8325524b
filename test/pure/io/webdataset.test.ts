import { afterAll, describe, expect, test } from "bun:test";
import {
  mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, truncateSync, writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hostTensor } from "../../../core/dtype.ts";
import { RcmError } from "../../../core/error.ts";
import { writeTar } from "../../../core/io/tar.ts";
import { readTar } from "../../harness/archives.ts";
import { listShards, readShard, ShardStream, writeShards, type Sample } from "../../../core/io/webdataset.ts";
import { lcg } from "../metrics/data.ts";

const root = mkdtempSync(join(tmpdir(), "rcm-wds-"));
afterAll(() => rmSync(root, { recursive: true }));

const sample = (i: number): Sample => ({
  key: String(i).padStart(9, "0"),
  latent: hostTensor("bf16", [2, 1, 3, 2], Array.from({ length: 12 }, (_, k) => i + k / 8)),
  embed: hostTensor("f32", [2, 4], Array.from({ length: 8 }, (_, k) => i * 8 + k)),
  prompt: `número ${i}\n`,
});
const samples = (n: number, from = 0): Sample[] => Array.from({ length: n }, (_, i) => sample(from + i));
const plain = (s: Sample): unknown => ({
  ...s, latent: { ...s.latent, data: [...s.latent.data] }, embed: { ...s.embed, data: [...s.embed.data] },
});
function failure(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof RcmError) return `${error.code} ${error.message}`;
    throw error;
  }
  return "nothing";
}
let folders = 0;
function folder(n: number, perShard: number): string {
  const dir = join(root, `d${folders++}`);
  if (n > 0) expect(writeShards(dir, samples(n), perShard)).toBe(n);
  return dir;
}
const take = (stream: ShardStream, n: number): string[] => Array.from({ length: n }, () => stream.next().key);
const keysOf = (dir: string): string[] => listShards(dir).flatMap((path) => readShard(path).map((s) => s.key));

describe("shards", () => {
  test("roundtrip, with the documented names", () => {
    const dir = folder(7, 3);
    expect(readdirSync(dir).sort()).toEqual(["shard_000000.tar", "shard_000001.tar", "shard_000002.tar"]);
    expect(Array.from(readTar(join(dir, "shard_000001.tar")), (m) => m.name).slice(0, 4)).toEqual([
      "000000003.latent.pt", "000000003.embed.pt", "000000003.prompt.txt", "000000004.latent.pt",
    ]);
    expect(listShards(dir).flatMap(readShard).map(plain)).toEqual(samples(7).map(plain));
  });

  test("number keys are padded to nine digits; keys with dots are refused", () => {
    const dir = folder(0, 1);
    writeShards(dir, [{ ...sample(1), key: "42" }]);
    expect(keysOf(dir)).toEqual(["000000042"]);
    expect(failure(() => writeShards(folder(0, 1), [{ ...sample(1), key: "a.b" }]))).toStartWith("E_ARG");
    expect(failure(() => writeShards(folder(0, 1), [], 0))).toStartWith("E_ARG");
  });

  test("a resumed write keeps whole shards, fills the last and skips its samples", () => {
    const dir = folder(10, 4);
    const before = statSync(join(dir, "shard_000000.tar"));
    const seen: [string, number][] = [];
    expect(writeShards(dir, samples(13), 4, (path, total) => seen.push([path.slice(-8), total]))).toBe(13);
    expect(seen).toEqual([["0002.tar", 12], ["0003.tar", 13]]);
    expect(statSync(join(dir, "shard_000000.tar")).ino).toBe(before.ino);
    const fresh = folder(13, 4);
    for (const name of readdirSync(fresh))
      expect(readFileSync(join(dir, name)).equals(readFileSync(join(fresh, name)))).toBe(true);
    expect(writeShards(dir, samples(13), 4, () => seen.push(["none", 0]))).toBe(13);
    expect(seen.length).toBe(2);
  });

  test("a function as source makes only what is missing", () => {
    const dir = folder(6, 4);
    const asked: number[] = [];
    expect(writeShards(dir, (kept) => (asked.push(kept), samples(3, kept)), 4)).toBe(9);
    expect(asked).toEqual([6]);
    expect(keysOf(dir)).toEqual(samples(9).map((s) => s.key));
  });

  test("a source that fails keeps the finished shards, and the next run goes on", () => {
    const dir = folder(0, 1);
    const failing = function* (): Generator<Sample> {
      yield* samples(7);
      throw new Error("stopped");
    };
    expect(() => writeShards(dir, failing(), 3)).toThrow("stopped");
    expect(readdirSync(dir).sort()).toEqual(["shard_000000.tar", "shard_000001.tar"]);
    expect(writeShards(dir, samples(8), 3)).toBe(8);
    expect(keysOf(dir)).toEqual(samples(8).map((s) => s.key));
  });

  test("a damaged shard is written anew; other samples or sizes are refused", () => {
    const dir = folder(9, 3);
    truncateSync(join(dir, "shard_000001.tar"), 1000);
    writeShards(dir, samples(9), 3);
    expect(listShards(dir).flatMap(readShard).map(plain)).toEqual(samples(9).map(plain));
    expect(failure(() => writeShards(dir, samples(9, 100), 3))).toMatch(/^E_STATE .*other samples/);
    expect(failure(() => writeShards(dir, samples(9), 2))).toStartWith("E_STATE");
    expect(failure(() => writeShards(dir, samples(9), 4))).toStartWith("E_STATE");
  });

  test("listShards sorts by number, takes both spellings, and advises when there are none", () => {
    const dir = folder(0, 1);
    expect(failure(() => listShards(dir))).toMatch(/^E_IO .*give the folder/);
    mkdirSync(dir);
    expect(failure(() => listShards(dir))).toMatch(/^E_FORMAT .*data\.path/);
    for (const name of [
      "shard-00010.tar", "shard-00002.tar", "shard_1000000.tar", "other.tar", ".shard_000000.tar.1.tmp",
    ])
      writeFileSync(join(dir, name), "");
    expect(listShards(dir).map((p) => p.slice(dir.length + 1))).toEqual([
      "shard-00002.tar", "shard-00010.tar", "shard_1000000.tar",
    ]);
  });

  test("lacking, doubled and damaged members name shard and member", () => {
    const path = join(root, "shard_000000.tar");
    const dir = folder(2, 2);
    const entries = Array.from(readTar(listShards(dir)[0]), (m): [string, Uint8Array] => [m.name, m.data]);
    writeTar(path, entries.filter(([name]) => name !== "000000001.embed.pt"));
    expect(failure(() => readShard(path))).toMatch(
      /^E_FORMAT .*shard_000000\.tar \(byte \d+\) lacks its member 000000001\.embed\.pt/,
    );
    expect(failure(() => new ShardStream({ paths: [path], seed: 0, shuffleBuffer: 4 }).next())).toStartWith("E_FORMAT");
    writeTar(path, [...entries, entries[0]]);
    expect(failure(() => readShard(path))).toMatch(/^E_FORMAT .*000000000\.latent\.pt twice/);
    writeTar(path, entries.map(([name, data]) => [name, name.endsWith("1.latent.pt") ? data.subarray(0, 40) : data]));
    expect(failure(() => readShard(path))).toMatch(/^E_FORMAT .*shard_000000\.tar: 000000001\.latent\.pt \(byte \d+\)/);
    writeTar(path, entries.map(([name, data]) => [name, name.endsWith(".txt") ? Uint8Array.of(0xff) : data]));
    expect(failure(() => readShard(path))).toMatch(/^E_FORMAT .*not UTF-8.*000000000\.prompt\.txt/);
    writeTar(path, [...entries, ["README", new Uint8Array(3)], ["000000000.json", new Uint8Array(3)]]);
    expect(readShard(path).length).toBe(2);
  });

  test("300 seeded mutations of a shard throw only RcmError", () => {
    const path = join(root, "shard_000009.tar");
    const random = lcg(5);
    const whole = new Uint8Array(readFileSync(listShards(folder(3, 3))[0]));
    for (let i = 0; i < 300; i++) {
      const bytes = whole.slice(0, random() < 0.3 ? Math.floor(random() * whole.length) : whole.length);
      for (let n = 0; n < 3; n++) bytes[Math.floor(random() * bytes.length)] = random() * 256;
      writeFileSync(path, bytes);
      failure(() => readShard(path));
    }
  });
});

describe("ShardStream", () => {
  const dir = folder(53, 7);
  const paths = listShards(dir);

  test("every epoch holds every sample once, in another order; the order follows from the seed", () => {
    const stream = new ShardStream({ paths, seed: 3, shuffleBuffer: 10 });
    const epochs = [take(stream, 53), take(stream, 53)];
    for (const epoch of epochs) expect([...epoch].sort()).toEqual(samples(53).map((s) => s.key));
    expect(epochs[0]).not.toEqual(epochs[1]);
    expect(take(new ShardStream({ paths, seed: 3, shuffleBuffer: 10 }), 106)).toEqual(epochs.flat());
    expect(take(new ShardStream({ paths, seed: 4, shuffleBuffer: 10 }), 53)).not.toEqual(epochs[0]);
  });

  test("samples come whole", () => {
    const stream = new ShardStream({ paths, seed: 1, shuffleBuffer: 100 });
    for (let i = 0; i < 60; i++) {
      const s = stream.next();
      expect(plain(s)).toEqual(plain(sample(Number(s.key))));
    }
  });

  test("a buffer of one keeps the order inside shards; a large one mixes shards", () => {
    const shard = (key: string): number => Math.floor(Number(key) / 7);
    const changes = (buffer: number): number =>
      take(new ShardStream({ paths, seed: 2, shuffleBuffer: buffer }), 53).filter(
        (key, i, all) => i > 0 && shard(key) !== shard(all[i - 1]),
      ).length;
    expect(changes(1)).toBe(7);
    expect(changes(1000)).toBeGreaterThan(25);
  });

  for (const [world, buffer] of [[1, 10], [3, 5], [8, 20], [11, 16]]) {
    test(`${world} ranks cover each epoch exactly once, and resume bitwise at random positions`, () => {
      const random = lcg(world);
      const all: string[] = [];
      const second: string[] = [];
      for (let rank = 0; rank < world; rank++) {
        const options = { paths, rank, world, seed: 9, shuffleBuffer: buffer };
        const stream = new ShardStream(options);
        const order: Sample[] = [];
        const positions = [stream.position()];
        for (let i = 0; i < 160; i++) {
          order.push(stream.next());
          positions.push(stream.position());
        }
        const size = positions.findIndex((p) => p.epoch === 1) - 1;
        all.push(...order.slice(0, size).map((s) => s.key));
        second.push(...order.slice(size, 2 * size).map((s) => s.key));
        for (let i = 0; i < 6; i++) {
          const at = i === 0 ? size : Math.floor(random() * 120);
          const resumed = new ShardStream(options);
          resumed.restore(JSON.parse(JSON.stringify(positions[at])));
          for (let k = at; k < at + 30; k++) expect(plain(resumed.next())).toEqual(plain(order[k]));
          expect(resumed.position()).toEqual(positions[at + 30]);
        }
      }
      expect(all.sort()).toEqual(samples(53).map((s) => s.key));
      expect(second.sort()).toEqual(all);
    });
  }

  test("a position of another stream, data set or place is refused", () => {
    const options = { paths, seed: 5, shuffleBuffer: 10 };
    const stream = new ShardStream(options);
    const position = stream.position();
    for (const change of [
      { seed: 6 }, { rank: 1 }, { world: 2 }, { shuffleBuffer: 11 }, { data: 1 }, { index: 54 }, { index: -1 },
      { epoch: 0.5 }, { epoch: undefined },
    ]) {
      expect(failure(() => stream.restore({ ...position, ...change } as typeof position))).toStartWith("E_STATE");
    }
    expect(failure(() => new ShardStream({ ...options, paths: paths.slice(1) }).restore(position))).toStartWith(
      "E_STATE",
    );
    stream.restore({ ...position, index: 53 });
    expect(stream.next().key).toBe(take(new ShardStream(options), 54)[53]);
  });

  test("bad options are E_ARG; more ranks than samples is E_FORMAT", () => {
    const good = { paths, seed: 0, shuffleBuffer: 1 };
    for (const bad of [
      { paths: [] }, { rank: 1 }, { rank: -1 }, { world: 0 }, { world: 2000 }, { seed: 0.5 }, { shuffleBuffer: 0 },
    ])
      expect(failure(() => new ShardStream({ ...good, ...bad }))).toStartWith("E_ARG");
    expect(failure(() => new ShardStream({ ...good, world: 60, rank: 59 }).next())).toStartWith("E_FORMAT");
  });

  test("64 cached samples take less than 2 ms", () => {
    const stream = new ShardStream({ paths, seed: 5, shuffleBuffer: 10 });
    take(stream, 530);
    let best = Number.POSITIVE_INFINITY;
    for (let i = 0; i < 10; i++) {
      const start = performance.now();
      for (let k = 0; k < 64; k++) stream.next();
      best = Math.min(best, performance.now() - start);
    }
    expect(best).toBeLessThan(2);
  });
});
