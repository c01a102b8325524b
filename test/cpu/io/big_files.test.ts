import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { openCheckpoint, readHost, readStored } from "../../../core/io/checkpoint.ts";
import { cpu } from "../../harness/device.ts";
import * as p from "../../harness/pickle.ts";

/** Sparse files beyond 4 GiB: places are 64-bit, and opening reads headers only. */
const HUGE = 5 * 2 ** 30 + 64;
const VALUES = Float32Array.from({ length: 16 }, (_, i) => i * 1.5 - 3);
const bytes = new Uint8Array(VALUES.buffer);

let dir = "";
beforeAll(() => void (dir = mkdtempSync(join(tmpdir(), "rcm-big-"))));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** Writes parts at their places; what lies between stays a hole. */
function sparse(name: string, size: number, parts: [at: number, part: Uint8Array][]): string {
  const path = join(dir, name);
  const fd = openSync(path, "w");
  ftruncateSync(fd, size);
  for (const [at, part] of parts) writeSync(fd, part, 0, part.length, at);
  closeSync(fd);
  return path;
}

function expectValues(path: string, names: string[], format: string): void {
  const before = process.memoryUsage().rss;
  const opened = openCheckpoint(path);
  expect(opened.format).toBe(format as typeof opened.format);
  expect(opened.bytes).toBeGreaterThan(2 ** 32);
  using _scope = cpu().scope();
  for (const name of names) {
    const t = opened.tensors.get(name);
    if (!t) throw new Error(`${path} lacks ${name}`);
    expect(t.bytes).toBe(64);
    expect(Array.from(new Float32Array(readHost(t).data.buffer))).toEqual(Array.from(VALUES));
    const into = cpu().empty([16], "f64");
    readStored(t, into);
    expect(Array.from(into.values())).toEqual(Array.from(VALUES));
  }
  expect(process.memoryUsage().rss - before).toBeLessThan(256 * 2 ** 20);
}

describe("files beyond 4 GiB", () => {
  test("safetensors", () => {
    const header = new TextEncoder().encode(
      JSON.stringify({
        pad: { dtype: "U8", shape: [HUGE], data_offsets: [0, HUGE] },
        w: { dtype: "F32", shape: [4, 4], data_offsets: [HUGE, HUGE + 64] },
      }),
    );
    const path = sparse("a.safetensors", 8 + header.length + HUGE + 64, [
      [0, p.file(p.le(header.length, 8))], [8, header], [8 + header.length + HUGE, bytes],
    ]);
    expectValues(path, ["w"], "safetensors");
  });

  const dict = (legacy: boolean): Uint8Array => {
    const tensor = (storage: string, type: string, count: number, offset: number, shape: number[], strides: number[]) =>
      p.tensor({ storage, type, count, offset, shape, strides, legacy });
    const entries: [p.Bytes, p.Bytes][] = [
      [p.str("pad"), tensor("0", "Float", HUGE / 4, 0, [HUGE / 4], [1])],
      [p.str("tail"), tensor("0", "Float", HUGE / 4, HUGE / 4 - 16, [16], [1])],
      [p.str("w"), tensor("1", "Float", 16, 0, [4, 4], [4, 1])],
    ];
    return p.file(p.proto(2), p.dict(...entries), p.STOP);
  };

  test("torch zip with zip64 records", () => {
    const pickle = dict(false);
    const member = (name: string, size: number, crc: number, at: number) => {
      const zip64 = [...p.le(1, 2), ...p.le(24, 2), ...p.le(size, 8), ...p.le(size, 8), ...p.le(at, 8)];
      const local = p.file(
        p.le(0x04034b50, 4), p.le(45, 2), p.le(0, 8), p.le(crc, 4), p.le(0xffffffff, 4), p.le(0xffffffff, 4),
        p.le(name.length, 2), p.le(zip64.length, 2), p.utf8(name), zip64,
      );
      const central = p.file(
        p.le(0x02014b50, 4), p.le(45, 2), p.le(45, 2), p.le(0, 8), p.le(crc, 4), p.le(0xffffffff, 4),
        p.le(0xffffffff, 4), p.le(name.length, 2), p.le(zip64.length, 2), p.le(0, 10), p.le(0xffffffff, 4),
        p.utf8(name), zip64,
      );
      return { local, central, data: at + local.length, end: at + local.length + size };
    };
    const a = member("m/data.pkl", pickle.length, crc32(pickle), 0);
    const b = member("m/data/0", HUGE, 0, a.end);
    const c = member("m/data/1", 64, crc32(bytes), b.end);
    const directory = new Uint8Array(Buffer.concat([a.central, b.central, c.central]));
    const at = c.end;
    const end64 = p.file(
      p.le(0x06064b50, 4), p.le(44, 8), p.le(45, 4), p.le(0, 8), p.le(3, 8), p.le(3, 8), p.le(directory.length, 8),
      p.le(at, 8),
    );
    const end = p.file(
      p.le(0x07064b50, 4), p.le(0, 4), p.le(at + directory.length, 8), p.le(1, 4), p.le(0x06054b50, 4), p.le(0, 4),
      p.le(0xffff, 2), p.le(0xffff, 2), p.le(0xffffffff, 4), p.le(0xffffffff, 4), p.le(0, 2),
    );
    const parts: [number, Uint8Array][] = [
      [0, a.local], [a.data, pickle], [a.end, b.local], [b.end - 64, bytes], [b.end, c.local], [c.data, bytes],
      [at, directory], [at + directory.length, end64], [at + directory.length + end64.length, end],
    ];
    expectValues(sparse("b.pth", at + directory.length + end64.length + end.length, parts), ["w", "tail"], "torch");
  });

  test("legacy torch", () => {
    const magic = [0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
    const head = p.file(
      p.proto(2), magic, p.STOP, p.proto(2), p.int(1001), p.STOP, p.proto(2),
      p.dict([p.str("little_endian"), p.bool(true)]), p.STOP, [...dict(true)], p.proto(2),
      p.list(p.str("0"), p.str("1")), p.STOP,
    );
    const first = head.length + 8;
    const second = first + HUGE + 8;
    const parts: [number, Uint8Array][] = [
      [0, head], [head.length, p.file(p.le(HUGE / 4, 8))], [first + HUGE - 64, bytes],
      [first + HUGE, p.file(p.le(16, 8))], [second, bytes],
    ];
    expectValues(sparse("c.pth", second + 64, parts), ["w", "tail"], "torch-legacy");
  });
});
