import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ShardAppender } from "../../../core/data/appender.ts";
import { hasNonfinite, inspectShards } from "../../../core/data/inspect.ts";
import { inspectRun } from "../../../core/data/inspect_run.ts";
import { mergeShards, type MergeOptions } from "../../../core/data/merge.ts";
import { padded, usedRows } from "../../../core/text/embedder.ts";
import { readPrompts } from "../../../core/text/prompts.ts";
import { openStored, StoredEmbedder } from "../../../core/text/stored.ts";
import { hostTensor, hostValues } from "../../../core/dtype.ts";
import { TAR_END, tarEntry } from "../../../core/io/tar.ts";
import { writeTorch } from "../../../core/io/torch.ts";
import { readShard, writeShards, type Sample } from "../../../core/io/webdataset.ts";
import { latentPreview, latentSheet } from "../../../core/data/sheet.ts";

let dir = "";
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "rcm-shards-"));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const SHAPE = [3, 2, 2, 4];
const sample = (i: number, value = i): Sample => ({
  key: String(i).padStart(9, "0"),
  latent: hostTensor(
    "bf16",
    SHAPE,
    Float64Array.from({ length: 48 }, (_, k) => value + ((k % 5) - 2) / 4),
  ),
  embed: padded(hostTensor("f32", [1 + (i % 3), 4], new Float64Array(4 * (1 + (i % 3))).fill(value + 1)), 6, "bf16"),
  prompt: `prompt ${i}`,
});
const keysOf = (path: string): string[] => readShard(path).map((s) => s.key);

describe("a shard that grows", () => {
  const bytesOf = (n: number, name: string): Buffer => {
    const path = join(dir, name, "shard_000000.tar");
    using shard = new ShardAppender(path);
    for (let i = 0; i < n; i++) shard.append(sample(i));
    shard.finish();
    return readFileSync(path);
  };

  test("it has the bytes of a shard written at once, and its name only at the end", () => {
    const grown = bytesOf(3, "grown");
    writeShards(
      join(dir, "once"),
      [0, 1, 2].map((i) => sample(i)),
    );
    expect(Buffer.compare(grown, readFileSync(join(dir, "once/shard_000000.tar")))).toBe(0);
    expect(readdirSync(join(dir, "grown"))).toEqual(["shard_000000.tar"]);
  });

  test("cut anywhere, it goes on after its last whole sample", () => {
    const whole = bytesOf(3, "reference");
    const path = join(dir, "cut/shard_000000.tar");
    const ends = [0, 1, 2, 3].map((n) => {
      const parts = Array.from({ length: n }, (_, i) => sample(i)).flatMap(
        (s) =>
          [
            [`${s.key}.latent.pt`, writeTorch(s.latent)],
            [`${s.key}.embed.pt`, writeTorch(s.embed)],
            [`${s.key}.prompt.txt`, new TextEncoder().encode(s.prompt)],
          ] as [string, Uint8Array][],
      );
      return parts.reduce((sum, [name, data]) => sum + [...tarEntry(name, data)].reduce((m, b) => m + b.length, 0), 0);
    });
    expect(ends[3]).toBe(whole.length - TAR_END.length);
    for (let cut = 0; cut < whole.length - TAR_END.length; cut += 509) {
      mkdirSync(join(dir, "cut"), { recursive: true });
      writeFileSync(`${path}.tmp`, whole.subarray(0, cut));
      using shard = new ShardAppender(path);
      const kept = ends.findLastIndex((end) => end <= cut);
      expect(shard.keys).toEqual([0, 1, 2].slice(0, kept).map((i) => sample(i).key));
      for (let i = kept; i < 3; i++) shard.append(sample(i));
      shard.finish();
      expect(Buffer.compare(readFileSync(path), whole)).toBe(0);
      rmSync(path);
    }
  });

  test("a last sample whose bytes are wrong is made again", () => {
    const whole = bytesOf(2, "flip");
    const bad = Buffer.from(whole.subarray(0, whole.length - TAR_END.length));
    const at = bad.lastIndexOf(Buffer.from(writeTorch(sample(1).embed).subarray(-300, -200)));
    bad[at > 0 ? at : bad.length - 2000] ^= 0xff;
    writeFileSync(join(dir, "flip/shard_000001.tar.tmp"), bad);
    using shard = new ShardAppender(join(dir, "flip/shard_000001.tar"));
    expect(shard.keys.length).toBeLessThan(2);
  });
});

describe("merging", () => {
  const options = (o: Partial<MergeOptions>): MergeOptions => ({
    inputs: [],
    out: "",
    perShard: 3,
    naming: "underscore",
    renumber: false,
    check: true,
    ...o,
  });

  test("samples keep their order and bytes; equal ones are taken once; names as asked", () => {
    writeShards(
      join(dir, "a"),
      [0, 1, 2, 3].map((i) => sample(i)),
      2,
    );
    writeShards(
      join(dir, "b"),
      [3, 4].map((i) => sample(i)),
      2,
    );
    const m = mergeShards(
      options({ inputs: [join(dir, "a"), join(dir, "b/shard_000000.tar")], out: join(dir, "ab"), naming: "dash" }),
    );
    expect(m).toMatchObject({ samples: 5, shards: 2, duplicates: 1 });
    expect(readdirSync(join(dir, "ab")).sort()).toEqual(["shard-00000.tar", "shard-00001.tar"]);
    const all = ["shard-00000.tar", "shard-00001.tar"].flatMap((f) => readShard(join(dir, "ab", f)));
    expect(all.map((s) => s.prompt)).toEqual([0, 1, 2, 3, 4].map((i) => `prompt ${i}`));
    expect(all.map((s) => Buffer.from(s.latent.data))).toEqual(
      [0, 1, 2, 3, 4].map((i) => Buffer.from(sample(i).latent.data)),
    );
  });

  test("two different samples of one key are refused by name, or numbered anew", () => {
    writeShards(join(dir, "c"), [sample(1, 9)]);
    const inputs = [join(dir, "a"), join(dir, "c")];
    expect(() => mergeShards(options({ inputs, out: join(dir, "ac") }))).toThrow("different samples of key 000000001");
    expect(existsSync(join(dir, "ac"))).toBe(false);
    expect(mergeShards(options({ inputs, out: join(dir, "ac"), renumber: true }))).toMatchObject({
      samples: 5,
      duplicates: 0,
    });
    expect(["shard_000000.tar", "shard_000001.tar"].flatMap((f) => keysOf(join(dir, "ac", f)))).toEqual(
      [0, 1, 2, 3, 4].map((i) => sample(i).key),
    );
    expect(() => mergeShards(options({ inputs, out: join(dir, "ac") }))).toThrow("already holds shards");
  });

  test("a member in a folder of its key is found too", () => {
    const s = sample(7);
    const path = join(dir, "folders.tar");
    for (const [name, data] of [
      ["7/latent.pt", writeTorch(s.latent)],
      ["7/embed.pt", writeTorch(s.embed)],
      ["7/prompt.txt", new TextEncoder().encode("seven")],
    ] as const) {
      for (const b of tarEntry(name, data)) appendFileSync(path, b);
    }
    appendFileSync(path, TAR_END);
    expect(readShard(path)).toMatchObject([{ key: "7", prompt: "seven" }]);
  });
});

describe("inspection", () => {
  test("counts, statistics and tokens are those of the samples", () => {
    writeShards(
      join(dir, "good"),
      [0, 1, 2, 3, 4, 5].map((i) => sample(i)),
      4,
    );
    const { report, sheet } = inspectShards({ inputs: [join(dir, "good")], statistics: 0, sheet: 3 });
    expect(report).toMatchObject({
      shards: 2,
      samples: 6,
      latents: { "[3, 2, 2, 4] bf16": 6 },
      embeds: { "[6, 4] bf16": 6 },
      embedTokens: { least: 1, mean: 2, most: 3 },
      promptLength: { least: 8, most: 8 },
      nonfinite: 0,
      ok: true,
      problems: [],
    });
    const all = [0, 1, 2, 3, 4, 5].flatMap((i) => Array.from(hostValues(sample(i).latent).subarray(0, 16)));
    const mean = all.reduce((a, b) => a + b, 0) / all.length;
    expect(report.channels[0].mean).toBeCloseTo(mean, 12);
    expect(report.channels[0].std).toBeCloseTo(
      Math.sqrt(all.reduce((a, b) => a + (b - mean) ** 2, 0) / all.length),
      12,
    );
    expect(sheet.map((s) => s.key)).toEqual([0, 2, 4].map((i) => sample(i).key));
  });

  test("what is wrong is listed: NaN, mixed shapes, repeated keys and prompts, a cut shard", () => {
    const nan = {
      ...sample(1),
      latent: hostTensor(
        "bf16",
        SHAPE,
        Float64Array.from({ length: 48 }, (_, i) => (i === 40 ? Number.NaN : 0)),
      ),
    };
    const other = { ...sample(2), latent: hostTensor("bf16", [3, 1, 2, 4], new Float64Array(24)), prompt: "prompt 0" };
    writeShards(join(dir, "bad"), [sample(0), nan, other]);
    writeShards(join(dir, "bad2"), [sample(0)]);
    writeShards(join(dir, "bad3"), [sample(8)]);
    truncateSync(join(dir, "bad3/shard_000000.tar"), 3000);
    const { report } = inspectShards({
      inputs: ["bad", "bad2", "bad3"].map((f) => join(dir, f)),
      statistics: 0,
      sheet: 0,
    });
    expect(report).toMatchObject({ samples: 4, nonfinite: 1, duplicateKeys: 1, duplicatePrompts: 2, ok: false });
    for (const text of ["cut off", "not finite", "latents differ", "1 keys come twice"])
      expect([text, report.problems.some((p) => p.includes(text))]).toEqual([text, true]);
    expect(report.problems.length).toBe(4);
  });

  test("the contact sheet is a PNG of three frames a sample; a preview spans its channel", () => {
    const out = join(dir, "sheet.png");
    expect(
      inspectRun({ inputs: [join(dir, "good")], statistics: 4, count: 5, sheet: out, vae: null, device: "cpu" }),
    ).toMatchObject({ sheet: out, statisticsSamples: 4 });
    const png = readFileSync(out);
    // 4 columns of 2 frames, each 4 * 64 wide, 2 apart and around.
    expect([png.readUInt32BE(16), png.readUInt32BE(20)]).toEqual([8 * (256 + 2) + 2, 2 * (128 + 2) + 2]);
    const ramp = hostTensor("f32", [3, 1, 1, 2], [-1, 1, 0, 0, 5, -5]);
    expect(Array.from(latentPreview(ramp, [0])[0])).toEqual([77, 128, 179, 179, 128, 77]);
    expect(latentSheet([ramp], 1).subarray(1, 4)).toEqual(new TextEncoder().encode("PNG"));
    expect(() =>
      inspectRun({ inputs: [join(dir, "good")], statistics: 0, count: 1, sheet: null, vae: "x", device: "cpu" }),
    ).toThrow("--sheet");
  });

  test("values that are not finite are found in every dtype", () => {
    for (const dtype of ["bf16", "f16", "f32", "f64"] as const) {
      expect(hasNonfinite(hostTensor(dtype, [3], [1, -2, 3e4]))).toBe(false);
      for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])
        expect(hasNonfinite(hostTensor(dtype, [3], [1, bad, 0]))).toBe(true);
    }
  });
});

describe("prompts and embeddings", () => {
  test("a file of prompts: a line each, any line ends, blank lines left out", () => {
    writeFileSync(join(dir, "p.txt"), "one fox\r\n\n  \ntwo café\n");
    expect(readPrompts(join(dir, "p.txt"))).toEqual(["one fox", "two café"]);
    writeFileSync(join(dir, "empty.txt"), "\n\n");
    expect(() => readPrompts(join(dir, "empty.txt"))).toThrow("holds no prompt");
    expect(() => readPrompts(join(dir, "none.txt"))).toThrow("cannot read");
  });

  test("CRLF, a byte order mark and a missing last newline change nothing", () => {
    const path = join(dir, "same.txt");
    for (const text of [
      "one fox\ntwo café\n",
      "one fox\r\ntwo café\r\n",
      "\ufeffone fox\ntwo café\n",
      "\ufeffone fox\r\ntwo café",
      "\none fox\n\t\ntwo café",
    ]) {
      writeFileSync(path, text);
      expect(readPrompts(path)).toEqual(["one fox", "two café"]);
    }
  });

  test("a file that is not UTF-8 is refused with the place", () => {
    const path = join(dir, "other.txt");
    for (const [bytes, place] of [
      [Buffer.from("plain\ncaf\xe9\nmore\n", "latin1"), "line 2, byte 4"],
      [Buffer.from("\xe9 \n", "latin1"), "line 1, byte 1"],
      [Buffer.from("\ufeffred", "utf16le"), "line 1, byte 1"],
      [Buffer.from("caf\xc3", "latin1"), "line 1, byte 4"],
    ] as const) {
      writeFileSync(path, bytes);
      expect(() => readPrompts(path)).toThrow(`is not UTF-8 (${place})`);
    }
  });

  test("embeddings come from files or from shards; what is missing is named", async () => {
    const folder = join(dir, "embeds");
    mkdirSync(folder);
    writeFileSync(
      join(folder, "000000000.embed.pt"),
      writeTorch(hostTensor("f32", [1, 2, 4], [1, 2, 3, 4, 5, 6, 7, 8])),
    );
    writeFileSync(join(folder, "000002.embed.pt"), writeTorch(hostTensor("f32", [2, 4], [1, 0, 0, 0, 0, 0, 0, 0])));
    const open = (length: number, width: number) =>
      new StoredEmbedder(openStored(folder), { length, width }, ["zero", "one", "two", "zero"]);
    const [zero, two, again] = await open(3, 4).embed(["zero", "two", "zero"]);
    expect([zero.shape, two.shape, again]).toEqual([[2, 4], [1, 4], zero]);
    expect(Array.from(hostValues(padded(zero, 3)))).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0]);
    await expect(open(3, 4).embed(["one"])).rejects.toThrow("no embedding of prompt 1 (000000001.embed.pt)");
    await expect(open(3, 4).embed(["three"])).rejects.toMatchObject({ code: "E_ARG", got: "three" });
    for (const [length, width] of [
      [1, 4],
      [3, 5],
    ])
      await expect(open(length, width).embed(["zero"])).rejects.toThrow("no text embedding of this model");
    const [four] = await new StoredEmbedder(openStored(join(dir, "good")), { length: 6, width: 4 }, [
      "",
      "",
      "",
      "",
      "four",
    ]).embed(["four"]);
    expect(four.shape).toEqual([usedRows(sample(4).embed), 4]);
    expect(padded(four, 6)).toEqual(sample(4).embed);
    expect(() => openStored(join(dir, "cut"))).toThrow("holds neither");
  });
});
