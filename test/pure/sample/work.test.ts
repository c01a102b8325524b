import { describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hostTensor, type HostTensor } from "../../../core/dtype.ts";
import { writeSafetensors } from "../../../core/io/safetensors.ts";
import { writeTorch } from "../../../core/io/torch.ts";
import { readEmbeddings, readStoredText } from "../../../core/text/stored.ts";
import { Stages } from "../../../core/sample/stages.ts";
import { parseShard } from "../../../core/io/shard.ts";
import { ofShard, workItems } from "../../../core/sample/work.ts";
import type { Device } from "../../../core/tensor.ts";

describe("work", () => {
  test("shards are disjoint, cover everything, and are even", () => {
    const items = workItems(["a", "b", "c"], 5);
    expect(items.map((i) => i.index)).toEqual([...Array(15).keys()]);
    expect(items[7]).toEqual({ index: 7, prompt: "b", promptIndex: 1, name: "000007" });
    for (const n of [1, 2, 4, 7, 20]) {
      const parts = Array.from({ length: n }, (_, i) => ofShard(items, parseShard(`${i}/${n}`)).map((x) => x.index));
      expect(parts.flat().sort((a, b) => a - b)).toEqual([...Array(15).keys()]);
      expect(Math.max(...parts.map((p) => p.length)) - Math.min(...parts.map((p) => p.length))).toBeLessThanOrEqual(1);
    }
  });
  test("a prompt added at the end leaves the others' numbers alone", () => {
    expect(workItems(["a", "b", "c"], 2).slice(0, 4)).toEqual(workItems(["a", "b"], 2));
  });
  test("shards that are none", () => {
    for (const bad of ["", "1", "2/2", "a/b", "1/0", "-1/2", "1/2/3", "0.5/2"])
      expect(() => parseShard(bad)).toThrow(expect.objectContaining({ code: "E_ARG" }));
  });
});

describe("text embeddings of files", () => {
  const dir = mkdtempSync(join(tmpdir(), "rcm-embeds-"));
  const one = hostTensor("f32", [3, 4], [...Array(12).keys()]);
  const several = hostTensor("bf16", [2, 3, 4], [...Array(24).keys()]);
  test("one or several, .pt and .safetensors, bare or in a dict", () => {
    writeFileSync(join(dir, "a.pt"), writeTorch(one));
    writeFileSync(join(dir, "b.pt"), writeTorch([["embeds", several]]));
    writeSafetensors(join(dir, "c.safetensors"), new Map([["x", several]]));
    expect(readEmbeddings(join(dir, "a.pt"))).toEqual([one]);
    for (const f of ["b.pt", "c.safetensors"]) {
      expect(readEmbeddings(join(dir, f)).map((t) => [t.dtype, t.shape, t.data.length])).toEqual([
        ["bf16", [3, 4], 24],
        ["bf16", [3, 4], 24],
      ]);
      expect([...readEmbeddings(join(dir, f))[1].data]).toEqual([...several.data.subarray(24)]);
    }
    writeFileSync(join(dir, "d.pt"), writeTorch(hostTensor("f32", [5], [1, 2, 3, 4, 5])));
    expect(() => readEmbeddings(join(dir, "d.pt"))).toThrow(expect.objectContaining({ code: "E_FORMAT" }));
    writeFileSync(
      join(dir, "e.pt"),
      writeTorch([
        ["a", one],
        ["b", one],
      ]),
    );
    expect(() => readEmbeddings(join(dir, "e.pt"))).toThrow(expect.objectContaining({ code: "E_FORMAT" }));
  });
  test("a text of another width or too long is refused", () => {
    const read = (shape: number[]): HostTensor => {
      writeFileSync(
        join(dir, "x.pt"),
        writeTorch(hostTensor("f32", shape, new Float64Array(shape.reduce((a, b) => a * b)).fill(1))),
      );
      return readStoredText(join(dir, "x.pt"), { length: 5, width: 4 });
    };
    expect(read([3, 4])).toMatchObject({ dtype: "f32", shape: [3, 4] });
    for (const shape of [
      [6, 4],
      [3, 5],
    ])
      expect(() => read(shape)).toThrow(expect.objectContaining({ code: "E_SHAPE" }));
    for (const shape of [[12], [2, 3, 4]])
      expect(() => read(shape)).toThrow(expect.objectContaining({ code: "E_FORMAT" }));
    rmSync(dir, { recursive: true });
  });
});

test("stages: time goes to the innermost, peaks to whoever was open", () => {
  let now = 0;
  let peak = 0;
  const device = {
    sync() {},
    resetPeak: () => void (peak = 0),
    memory: () => ({ peak, reservedPeak: 2 * peak }),
  } as unknown as Device;
  const stages = new Stages(device, () => now);
  const work = (ms: number, bytes: number): void => {
    now += ms;
    peak = Math.max(peak, bytes);
  };
  stages.run("decode", () => {
    work(100, 7);
    stages.run("write", () => work(50, 3));
    work(200, 5);
    stages.run("write", () => work(25, 4));
  });
  work(1000, 99);
  expect(stages.report()).toEqual([
    { name: "decode", seconds: expect.closeTo(0.3, 9), calls: 1, peakBytes: 7, reservedBytes: 14 },
    { name: "write", seconds: expect.closeTo(0.075, 9), calls: 2, peakBytes: 4, reservedBytes: 8 },
  ]);
  expect(stages.seconds("decode", "write")).toBeCloseTo(0.375);
});
