import { describe, expect, test } from "bun:test";
import type { Code, Pointer } from "../../../ffi/call.ts";
import { RcmError } from "../../../ffi/error.ts";
import { alloc, download, free, memoryStats, upload } from "../../../ffi/memory.ts";
import { openBackend } from "../../../ffi/open.ts";

const backend = openBackend({ device: "cpu" });
const { lib } = backend;

/** The error of a call that must fail. */
function failure(run: () => void): RcmError {
  try {
    run();
  } catch (error) {
    if (error instanceof RcmError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

describe("memory", () => {
  test("stays flat over 10000 rounds of taking and giving back", () => {
    const round = (i: number): void => free(lib, alloc(lib, 1 + ((i * 7919) % 65536)));
    for (let i = 0; i < 1000; i++) round(i);
    const before = memoryStats(lib);
    for (let i = 0; i < 10_000; i++) round(i);
    const after = memoryStats(lib);
    expect(after.current).toBe(before.current);
    expect(after.blocks).toBe(before.blocks);
    expect(after.allocations).toBe(before.allocations + 10_000);
    expect(after.reserved).toBeLessThanOrEqual(before.reserved + 1_000_000);
  });

  test("counts what is held, and its peak", () => {
    const before = memoryStats(lib);
    const p = alloc(lib, 1_000_000);
    expect(p % 256).toBe(0);
    const held = memoryStats(lib);
    expect(held.current - before.current).toBeGreaterThanOrEqual(1_000_000);
    expect(held.blocks).toBe(before.blocks + 1);
    expect(held.peak).toBeGreaterThanOrEqual(held.current);
    expect(held.reserved).toBeGreaterThanOrEqual(held.current);
    free(lib, p);
    expect(memoryStats(lib).current).toBe(before.current);
    free(lib, 0);
    lib.memoryTrim();
    lib.memoryResetPeak();
    expect(memoryStats(lib).peak).toBe(before.current);
  });

  test("bytes come back as they went, at every size around where Bun moves arrays", () => {
    const p = alloc(lib, 5000);
    for (const n of [0, 1, 2, 7, 8, 63, 64, 999, 1000, 1001, 4096, 5000]) {
      const bytes = Uint8Array.from({ length: n }, (_, i) => (i * 31 + n) & 255);
      upload(lib, p, bytes);
      const back = new Uint8Array(n);
      download(lib, p, back);
      expect(Buffer.compare(back, bytes)).toBe(0);
    }
    // A window of a larger buffer touches nothing beside it.
    const wide = new Uint8Array(16).fill(9);
    upload(lib, p, Uint8Array.of(1, 2, 3));
    download(lib, p, wide.subarray(4, 7));
    expect([...wide]).toEqual([9, 9, 9, 9, 1, 2, 3, 9, 9, 9, 9, 9, 9, 9, 9, 9]);
    free(lib, p);
  });

  test("survives a collection between every step", () => {
    const p = alloc(lib, 64);
    for (let i = 0; i < 50; i++) {
      upload(lib, p, new Uint8Array(64).fill(i));
      Bun.gc(true);
      const back = new Uint8Array(64);
      download(lib, p, back);
      Bun.gc(true);
      expect(back.every((b) => b === i)).toBe(true);
    }
    free(lib, p);
  });
});

describe("errors of the library", () => {
  test("its text arrives once, under the name of the call", () => {
    const p = alloc(lib, 256);
    const e = failure(() => lib.fill({ out: p, n: 4, value: 1, dtype: 99 as Code }));
    expect(["E_ARG", "E_DTYPE"]).toContain(e.code);
    expect(e.op).toBe("fill");
    expect(e.message).toMatch(/^\[fill\] (?!\[).*99/);
    expect(lib.lastError()).toStartWith("[fill] ");
    free(lib, p);
  });

  test("memory that cannot be had is E_OOM and names the request", () => {
    const e = failure(() => alloc(lib, 2 ** 52));
    expect(e.code).toBe("E_OOM");
    expect(e.message).toContain(String(2 ** 52));
  });

  test("a pointer that was never given out is refused, and twice is once too often", () => {
    const p = alloc(lib, 8);
    free(lib, p);
    expect(failure(() => free(lib, p)).code).toBe("E_ARG");
    expect(failure(() => free(lib, 4096 as Pointer)).code).toBe("E_ARG");
  });

  test("sizes of zero do nothing", () => {
    const p = alloc(lib, 8);
    lib.zero({ dst: p, bytes: 0 });
    lib.fill({ out: p, n: 0, value: 1, dtype: 0 });
    lib.copy({ dst: p, src: p, bytes: 0, kind: 2 });
    free(lib, p);
  });
});
