import { describe, expect, test } from "bun:test";
import { bootstrap, gatherRows } from "../../../core/metrics/bootstrap.ts";
import { lcg, normals } from "./data.ts";

describe("bootstrap", () => {
  const x = normals(400, 21);
  const meanOf = (rows: Int32Array) => rows.reduce((sum, row) => sum + x[row], 0) / rows.length;

  test("the error of a mean is s / sqrt(n)", () => {
    const mean = x.reduce((sum, value) => sum + value, 0) / x.length;
    const s = Math.sqrt(x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.length);
    const got = bootstrap(x.length, meanOf, 2000, lcg(4));
    expect(got.std / (s / Math.sqrt(x.length))).toBeCloseTo(1, 1);
    expect(Math.abs(got.mean - mean)).toBeLessThan(0.01);
    expect(got.values.length).toBe(2000);
  });

  test("the same random numbers give the same result bit by bit", () => {
    expect(bootstrap(400, meanOf, 20, lcg(9))).toEqual(bootstrap(400, meanOf, 20, lcg(9)));
  });

  test("a metric that ignores the rows has no error", () => {
    expect(bootstrap(10, () => 2.5, 5, lcg(1)).std).toBe(0);
  });

  test("every row can be drawn and none outside", () => {
    const seen = new Set<number>();
    bootstrap(5, (rows) => (rows.forEach((row) => seen.add(row)), 0), 100, lcg(2));
    expect([...seen].sort()).toEqual([0, 1, 2, 3, 4]);
  });

  test("bad input has a code", () => {
    expect(() => bootstrap(5, () => 0, 1, lcg(1))).toThrow(expect.objectContaining({ code: "E_ARG" }));
    expect(() => bootstrap(5, () => 0, 5, () => 1)).toThrow(expect.objectContaining({ code: "E_ARG" }));
    expect(() => bootstrap(5, () => NaN, 5, lcg(1))).toThrow(expect.objectContaining({ code: "E_NONFINITE" }));
  });
});

test("gatherRows copies rows in order and refuses rows that do not exist", () => {
  const x = Float32Array.of(1, 2, 3, 4, 5, 6);
  expect([...gatherRows(x, [2, 0, 2], 2)]).toEqual([5, 6, 1, 2, 5, 6]);
  expect(() => gatherRows(x, [3], 2)).toThrow(expect.objectContaining({ code: "E_ARG" }));
  expect(() => gatherRows(x, [-1], 2)).toThrow(expect.objectContaining({ code: "E_ARG" }));
});
