import { describe, expect, test } from "bun:test";
import type { Pointer } from "../../../ffi/call.ts";
import { hostAlloc } from "../../../ffi/memory.ts";
import { cpu } from "../../harness/device.ts";

describe("copies beside compute", () => {
  test("host memory is given and taken back; what is not of it is refused", () => {
    const { lib } = cpu();
    const p = hostAlloc(lib, 1000);
    expect(p % 256).toBe(0);
    using _scope = cpu().scope();
    const t = cpu().fromValues([1, 2, 3, 4], [4], "f64");
    const back = cpu().zeros([4], "f64");
    lib.copyAsync({ dst: p, src: t.ptr, bytes: 32, kind: 1 });
    lib.copyAsync({ dst: back.ptr, src: p, bytes: 32, kind: 0 });
    lib.eventRecord({ event: 60, stream: 1 });
    lib.streamWait({ stream: 0, event: 60 });
    lib.eventSync(60);
    expect([...back.values()]).toEqual([1, 2, 3, 4]);
    lib.hostFree(p);
    expect(() => lib.hostFree(p)).toThrow("rcm_host_alloc");
    lib.hostFree(0);
  });
  test("events that were never recorded, and numbers out of range, are errors", () => {
    const { lib } = cpu();
    for (const wrong of [() => lib.streamWait({
      stream: 0, event: 63,
    }), () => lib.eventSync(62), () => lib.eventRecord({
      event: 64, stream: 0,
    }), () => lib.eventRecord({ event: 1, stream: 2 }), () => lib.copyAsync({
      dst: 256 as Pointer, src: 256 as Pointer, bytes: 8, kind: 3,
    })]) {
      expect(wrong).toThrow(expect.objectContaining({ code: "E_ARG" }));
    }
  });
  test("a size that cannot be had is out of memory, not a crash", () => {
    expect(() => hostAlloc(cpu().lib, 2 ** 50)).toThrow(expect.objectContaining({ code: "E_OOM" }));
  });
});
