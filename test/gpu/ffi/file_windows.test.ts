import { afterAll, beforeAll, describe, expect } from "bun:test";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { RcmError } from "../../../core/error.ts";
import { Rng } from "../../../core/rng.ts";
import { readFileWindow } from "../../../ffi/memory.ts";
import { gpuTier } from "../../harness/device.ts";

const { device, test } = gpuTier();

describe("gpu: windows of files", () => {
  let dir = "";
  beforeAll(() => void (dir = mkdtempSync(join(tmpdir(), "rcm-gpu-files-"))));
  afterAll(() => rmSync(dir, { recursive: true, force: true }));
  const SIZE = 96 * 2 ** 20 + 12345; // more than the pinned slots hold
  const path = (): string => join(dir, "data");

  test("any place and size gives the file's bytes, many queued one after another", () => {
    const words = new Uint32Array(Math.ceil(SIZE / 4)).map((_, i) => Math.imul(i + 1, 2654435761));
    const bytes = new Uint8Array(words.buffer, 0, SIZE);
    writeFileSync(path(), bytes);
    const rng = new Rng(5, 1);
    using _scope = device().scope();
    const windows = Array.from({ length: 60 }, (_, i) => {
      const offset = i === 0 ? 0 : rng.below(SIZE);
      const n = i === 0 ? SIZE : 1 + rng.below(Math.min(SIZE - offset, i % 3 === 0 ? 30 << 20 : 3 << 20));
      const into = device().empty([n], "u8");
      readFileWindow(device().lib, into.ptr, { path: path(), offset, bytes: n });
      return { offset, n, into };
    });
    for (const { offset, n, into } of windows)
      expect(Buffer.compare(into.toHost().data, bytes.subarray(offset, offset + n))).toBe(0);
  }, 120_000);

  test("a file that is too short, or is none, is named; the next read works", () => {
    using _scope = device().scope();
    const into = device().empty([SIZE], "u8");
    const code = (offset: number, n: number, file = path()): string => {
      try {
        readFileWindow(device().lib, into.ptr, { path: file, offset, bytes: n });
        return "read";
      } catch (error) {
        return error instanceof RcmError ? `${error.code} ${error.message}` : "other";
      }
    };
    truncateSync(path(), 1 << 20);
    expect(code(0, SIZE)).toMatch(/^E_IO .*ends at byte 1048576.*data/);
    expect(code(0, 10, dir)).toMatch(/^E_IO .*not a regular file/);
    expect(code(0, 10, `${path()}-gone`)).toMatch(/^E_IO .*cannot open/);
    expect(code(5, 1 << 19)).toBe("read");
  });
});
