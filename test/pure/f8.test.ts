import { describe, expect, test } from "bun:test";
import { fromF8Bits, hostTensor, hostValues, toF8Bits } from "../../core/dtype.ts";
import { Rng } from "../../core/rng.ts";

/**
 * All values of f8_e4m3 from 0 on, one row an exponent, written out from the definition of the format (bias 7, no
 * infinity).
 */
const TABLE = [
  0, 0.001953125, 0.00390625, 0.005859375, 0.0078125, 0.009765625, 0.01171875, 0.013671875,
  0.015625, 0.017578125, 0.01953125, 0.021484375, 0.0234375, 0.025390625, 0.02734375, 0.029296875,
  0.03125, 0.03515625, 0.0390625, 0.04296875, 0.046875, 0.05078125, 0.0546875, 0.05859375,
  0.0625, 0.0703125, 0.078125, 0.0859375, 0.09375, 0.1015625, 0.109375, 0.1171875,
  0.125, 0.140625, 0.15625, 0.171875, 0.1875, 0.203125, 0.21875, 0.234375,
  0.25, 0.28125, 0.3125, 0.34375, 0.375, 0.40625, 0.4375, 0.46875,
  0.5, 0.5625, 0.625, 0.6875, 0.75, 0.8125, 0.875, 0.9375,
  1, 1.125, 1.25, 1.375, 1.5, 1.625, 1.75, 1.875,
  2, 2.25, 2.5, 2.75, 3, 3.25, 3.5, 3.75,
  4, 4.5, 5, 5.5, 6, 6.5, 7, 7.5,
  8, 9, 10, 11, 12, 13, 14, 15,
  16, 18, 20, 22, 24, 26, 28, 30,
  32, 36, 40, 44, 48, 52, 56, 60,
  64, 72, 80, 88, 96, 104, 112, 120,
  128, 144, 160, 176, 192, 208, 224, 240,
  256, 288, 320, 352, 384, 416, 448,
];

/** Nearest of the table, by search: an even code in a tie. */
function nearest(v: number): number {
  const a = Math.abs(v);
  let best = 0;
  for (let i = 1; i < TABLE.length; i++) {
    const [old, now] = [Math.abs(TABLE[best] - a), Math.abs(TABLE[i] - a)];
    if (now < old || (now === old && i % 2 === 0)) best = i;
  }
  return best | (v < 0 || Object.is(v, -0) ? 0x80 : 0);
}

describe("f8_e4m3", () => {
  test("every code decodes to the table's value and encodes back", () => {
    TABLE.forEach((v, code) => {
      expect([code, fromF8Bits(code)]).toEqual([code, v]);
      expect([code, fromF8Bits(code | 0x80)]).toEqual([code, -v]);
      expect(toF8Bits(v)).toBe(code);
      expect(toF8Bits(-v)).toBe(code | 0x80);
    });
    for (const code of [0x7f, 0xff]) expect(fromF8Bits(code)).toBeNaN();
  });

  test("nearest even: every midpoint, and both of its neighbours", () => {
    for (let i = 1; i < TABLE.length; i++) {
      const middle = (TABLE[i - 1] + TABLE[i]) / 2;
      expect(toF8Bits(middle)).toBe(i % 2 === 0 ? i : i - 1);
      expect(toF8Bits(middle * (1 - 2 ** -50))).toBe(i - 1);
      expect(toF8Bits(middle * (1 + 2 ** -50))).toBe(i);
    }
  });

  test("saturates; NaN stays NaN", () => {
    for (const v of [448, 449, 463.99, 464, 480, 1e9, Number.POSITIVE_INFINITY])
      expect([toF8Bits(v), toF8Bits(-v)]).toEqual([0x7e, 0xfe]);
    expect(toF8Bits(Number.NaN)).toBe(0x7f);
    expect([toF8Bits(1e-300), toF8Bits(-1e-300)]).toEqual([0, 0x80]);
  });

  test("random values against a search of the table", () => {
    const rng = new Rng(5, 1);
    for (let i = 0; i < 20_000; i++) {
      const v = (rng.below(2) ? 1 : -1) * 2 ** (rng.below(22) - 12) * (1 + rng.below(1 << 20) / 2 ** 20);
      expect([v, toF8Bits(v)]).toEqual([v, nearest(v)]);
    }
  });

  test("host tensors", () => {
    const t = hostTensor("f8_e4m3", [2, 2], [1, -448, 0.3, 1000]);
    expect([...t.data]).toEqual([0x38, 0xfe, 0x2a, 0x7e]);
    expect([...hostValues(t)]).toEqual([1, -448, 0.3125, 448]);
  });
});
