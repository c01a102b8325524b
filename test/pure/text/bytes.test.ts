import { describe, expect, test } from "bun:test";
import { crc32 } from "node:zlib";
import { hostValues } from "../../../core/dtype.ts";
import { RcmError } from "../../../core/error.ts";
import { encodeBytes } from "../../../core/text/tokenizers/bytes.ts";

const rows = (prompt: string, length: number, dim: number): number[][] => {
  const values = hostValues(encodeBytes(prompt, length, dim));
  return Array.from({ length }, (_, i) => [...values.subarray(i * dim, (i + 1) * dim)]);
};
const difference = (a: number[], b: number[]): number[] => a.map((v, i) => v - b[i]);
const codeOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    if (error instanceof RcmError) return `${error.code} ${error.message}`;
    throw error;
  }
  return "nothing";
};

describe("encodeBytes", () => {
  test("gives f32 [length, dim], zero past the text", () => {
    const t = encodeBytes("abc", 8, 16);
    expect([t.dtype, ...t.shape, t.data.length]).toEqual(["f32", 8, 16, 8 * 16 * 4]);
    const all = rows("abc", 8, 16);
    for (let i = 0; i < 8; i++) expect(all[i].some((v) => v !== 0)).toBe(i < 3);
  });

  test("the empty text is all zeros", () => {
    expect(encodeBytes("", 5, 7).data.every((byte) => byte === 0)).toBe(true);
  });

  test("counts UTF-8 bytes, and names the limit when there are too many", () => {
    expect(rows("é", 4, 8).filter((row) => row.some((v) => v !== 0)).length).toBe(2);
    expect(() => encodeBytes("ééé", 6, 4)).not.toThrow();
    const message = codeOf(() => encodeBytes("éééx", 6, 4));
    expect(message).toStartWith("E_ARG");
    expect(message).toContain("limit is 6");
    expect(message).toContain("got 7");
  });

  test("refuses sizes that are not positive whole numbers", () => {
    for (const [length, dim] of [[0, 4], [4, 0], [1.5, 4], [4, Number.NaN], [-1, 4]])
      expect(codeOf(() => encodeBytes("", length, dim))).toStartWith("E_ARG");
  });

  test("a token depends on its own byte and the two before it, by lag", () => {
    const [a, b] = [rows("xyzabc", 8, 32), rows("qyzabc", 8, 32)];
    for (let i = 0; i < 3; i++) expect(a[i]).not.toEqual(b[i]);
    for (let i = 3; i < 6; i++) expect(a[i]).toEqual(b[i]);
    expect(rows("ab", 4, 32)[1]).not.toEqual(rows("ba", 4, 32)[1]);
  });

  test("equal texts at shifted places differ by their positions alone", () => {
    const a = rows("..abc", 8, 32);
    const b = rows("......abc", 12, 32);
    const c = rows("..xyz", 8, 32);
    const d = rows("......xyz", 12, 32);
    const [first, second] = [difference(a[4], b[8]), difference(c[4], d[8])];
    expect(first.some((v) => Math.abs(v) > 0.1)).toBe(true);
    first.forEach((v, i) => expect(v).toBeCloseTo(second[i], 5));
    expect(Math.max(...first.map(Math.abs))).toBeLessThanOrEqual(1.00001);
  });

  test("content has mean 0 and variance 1, and no large correlation between bytes", () => {
    const dim = 4096;
    const text = String.fromCharCode(...Array.from({ length: 64 }, (_, i) => 33 + i));
    const plain = rows(text, 64, dim);
    const position = difference(rows("aaaaaaaa", 8, dim)[7], rows("aaaaaaaa", 8, dim)[6]);
    expect(Math.max(...position.map(Math.abs))).toBeLessThanOrEqual(1.00001);
    for (const i of [0, 1, 2, 40]) {
      const mean = plain[i].reduce((s, v) => s + v, 0) / dim;
      const square = plain[i].reduce((s, v) => s + v * v, 0) / dim;
      expect(Math.abs(mean)).toBeLessThan(0.6); // the position's slow components do not average out
      expect(square).toBeGreaterThan(1 + 0.125 - 0.1);
      expect(square).toBeLessThan(1 + 0.125 + 0.1);
    }
    const [x, y] = [
      difference(plain[10], rows("~".repeat(64), 64, dim)[10]),
      difference(plain[50], rows("~".repeat(64), 64, dim)[50]),
    ];
    const variance = x.reduce((s, v) => s + v * v, 0) / dim;
    expect(variance).toBeGreaterThan(1.85);
    expect(variance).toBeLessThan(2.15);
    // x and y share the vectors of "~" only: covariance 1 of variance 2
    const covariance = x.reduce((s, v, i) => s + v * y[i], 0) / dim;
    expect(covariance).toBeGreaterThan(0.85);
    expect(covariance).toBeLessThan(1.15);
  });

  test("keeps its bits: checksums from a separate Python program of the same definition", () => {
    expect(crc32(encodeBytes("a red 7, naïve 数字", 40, 48).data)).toBe(1821456967);
    expect(crc32(encodeBytes("The quick brown fox", 77, 33).data)).toBe(1817563146);
  });

  test("is the same on every call", () => {
    expect(encodeBytes("same", 9, 12).data).toEqual(encodeBytes("same", 9, 12).data);
  });
});
