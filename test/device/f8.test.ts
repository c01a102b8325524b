import { describe, expect } from "bun:test";
import { fromF8Bits, hostTensor, hostValues, toF8Bits, type DType } from "../../core/dtype.ts";
import { onEachDevice } from "../harness/device.ts";

const f32 = new Float32Array(1);
const round = (v: number): number => ((f32[0] = v), f32[0]);
const NARROW: DType[] = ["bf16", "f16"];
const FLOATS: DType[] = ["f32", "bf16", "f16", "f64"];

/** f8 bit for bit as the host's conversion gives it, which test/pure/f8.test.ts compares with a written-out table. */

onEachDevice((device, test) => {
  describe("f8", () => {
    test("all bf16 and f16 values, with scales", () => {
      const codes = new Uint16Array(65536).map((_, i) => i);
      for (const dtype of NARROW) {
        const host = { dtype, shape: [65536], data: new Uint8Array(codes.slice().buffer) };
        const values = hostValues(host);
        using _scope = device().scope();
        const x = device().fromHost(host);
        for (const scale of [1, 0.25, 2 ** -9, 0.3, 1e-3]) {
          const y = device().empty([65536], "f8_e4m3");
          device().lib.f8Encode({ src: x.ptr, dst: y.ptr, n: x.numel, scale, srcDtype: x.code });
          const got = y.toHost().data;
          values.forEach((v, i) => {
            const want = toF8Bits(round(round(v) / round(scale)));
            const same = Number.isNaN(v) ? (got[i] & 0x7f) === 0x7f : got[i] === want;
          if (!same) throw new Error(`${dtype} ${v} / ${scale}: want ${want}, got ${got[i]}`);
          });
        }
      }
    });

    test("f32, odd sizes and odd addresses, and the way back into every dtype", () => {
      using _scope = device().scope();
      const values = Array.from({ length: 4099 }, (_, i) => Math.sin(i * 1.7) * 2 ** ((i % 19) - 11));
      const x = device().fromValues(values, [values.length], "f32");
      expect([...x.to("f8_e4m3").toHost().data]).toEqual(values.map((v) => toF8Bits(round(v))));
      const odd = device().empty([values.length], "f8_e4m3");
      odd.window(1, [4098]).set(x.window(1, [4098]));
      expect([...odd.window(1, [4098]).toHost().data]).toEqual(values.slice(1).map((v) => toF8Bits(round(v))));
      const all = device().fromHost({ dtype: "f8_e4m3", shape: [256], data: new Uint8Array(256).map((_, i) => i) });
      const exact = Array.from({ length: 256 }, (_, i) => fromF8Bits(i));
      for (const dtype of FLOATS) {
        expect([...all.to(dtype).values()]).toEqual(exact);
        const scaled = device().empty([255], dtype);
        device().lib.f8Decode({
          src: all.window(1, [255]).ptr, dst: scaled.ptr, n: 255, scale: 0.125, dstDtype: scaled.code,
        });
        const eighths = hostTensor(dtype, [255], exact.slice(1).map((v) => v / 8));
      expect([...scaled.values()]).toEqual([...hostValues(eighths)]);
      }
    });

    test("a scale or dtype that cannot be is refused", () => {
      using _scope = device().scope();
      const [x, y] = [device().zeros([4], "f32"), device().empty([4], "f8_e4m3")];
      const lib = device().lib;
      const encode = (scale: number, srcDtype: typeof x.code) => () =>
        lib.f8Encode({ src: x.ptr, dst: y.ptr, n: 4, scale, srcDtype });
      for (const scale of [0, -1, 1e-60]) expect(encode(scale, x.code)).toThrow("scale");
      expect(encode(1, 3)).toThrow("src_dtype");
      expect(() => lib.f8Decode({ src: y.ptr, dst: x.ptr, n: 4, scale: 1, dstDtype: 6 })).toThrow("dst_dtype");
    });
  });
});
