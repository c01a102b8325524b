import { describe, expect, test } from "bun:test";
import { labelAgreement, wilsonInterval } from "../../../core/metrics/agreement.ts";

describe("wilsonInterval", () => {
  test("known values", () => {
    // 15 of 50: the formula worked by hand, to three digits.
    const { low, high } = wilsonInterval(15, 50);
    expect(low).toBeCloseTo(0.191, 3);
    expect(high).toBeCloseTo(0.438, 3);
    // 81 of 263: Newcombe 1998 (Statistics in Medicine 17), the score method without continuity correction.
    expect(wilsonInterval(81, 263).low).toBeCloseTo(0.2553, 4);
    expect(wilsonInterval(81, 263).high).toBeCloseTo(0.3662, 4);
    // Closed form at the ends: z^2 / (n + z^2).
    const zz = 1.959963984540054 ** 2;
    expect(wilsonInterval(0, 20)).toEqual({ low: 0, high: expect.closeTo(zz / (20 + zz), 14) });
    expect(wilsonInterval(20, 20)).toEqual({ low: expect.closeTo(20 / (20 + zz), 14), high: 1 });
  });

  test("bad input has a code", () => {
    expect(() => wilsonInterval(3, 2)).toThrow(expect.objectContaining({ code: "E_ARG" }));
    expect(() => wilsonInterval(0, 0)).toThrow(expect.objectContaining({ code: "E_ARG" }));
  });
});

describe("labelAgreement", () => {
  test("counts by class; the first of equal logits wins; an absent class is NaN", () => {
    const logits = Float32Array.of(3, 1, 0, 0, 5, 1, 2, 2, 0, 0, 0, 9);
    const got = labelAgreement(logits, [0, 1, 1, 1], 4, 3);
    expect(got.agreement).toBe(0.5);
    expect(got.confusion).toEqual([[1, 0, 0], [1, 1, 1], [0, 0, 0]]);
    expect(got.perClass[0]).toBe(1);
    expect(got.perClass[1]).toBeCloseTo(1 / 3, 15);
    expect(got.perClass[2]).toBeNaN();
    expect({ low: got.low, high: got.high }).toEqual(wilsonInterval(2, 4));
  });

  test("bad input has a code", () => {
    expect(() => labelAgreement([1, 2], [2], 1, 2)).toThrow(expect.objectContaining({ code: "E_ARG" }));
    expect(() => labelAgreement([1, 2], [0, 1], 1, 2)).toThrow(expect.objectContaining({ code: "E_SHAPE" }));
    expect(() => labelAgreement([1, 2, 3], [0], 1, 2)).toThrow(expect.objectContaining({ code: "E_SHAPE" }));
    expect(() => labelAgreement([1, NaN], [0], 1, 2)).toThrow(expect.objectContaining({ code: "E_NONFINITE" }));
  });
});
