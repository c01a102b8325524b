import { describe, expect, test } from "bun:test";
import { cpu } from "../harness/device.ts";

describe("copies beside compute", () => {
  const out = new BigInt64Array(new ArrayBuffer(8));
  test("host memory is given and taken back; what is not of it is refused", () => {
    const { lib } = cpu();
    lib.hostAlloc(out, 1000);
    const p = Number(out[0]);
    expect(p % 256).toBe(0);
    using _scope = cpu().scope();
    const t = cpu().fromValues([1, 2, 3, 4], [4], "f64");
    const back = cpu().zeros([4], "f64");
    lib.copyAsync(p, t.ptr, 32, 1);
    lib.copyAsync(back.ptr, p, 32, 0);
    lib.eventRecord(60, 1);
    lib.streamWait(0, 60);
    lib.eventSync(60);
    expect([...back.values()]).toEqual([1, 2, 3, 4]);
    lib.hostFree(p);
    expect(() => lib.hostFree(p)).toThrow("rcm_host_alloc");
    lib.hostFree(0);
  });
  test("events that were never recorded, and numbers out of range, are errors", () => {
    const { lib } = cpu();
    for (const wrong of [() => lib.streamWait(0, 63), () => lib.eventSync(62), () => lib.eventRecord(64, 0), () => lib.eventRecord(1, 2), () => lib.copyAsync(256, 256, 8, 3)]) {
      expect(wrong).toThrow(expect.objectContaining({ code: "E_ARG" }));
    }
  });
  test("a size that cannot be had is out of memory, not a crash", () => {
    expect(() => cpu().lib.hostAlloc(out, 2 ** 50)).toThrow(expect.objectContaining({ code: "E_OOM" }));
  });
});
