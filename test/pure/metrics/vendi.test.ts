import { describe, expect, test } from "bun:test";
import { VENDI_RBF_MAX_ROWS, vendiScore, withinPromptVendi } from "../../../core/metrics/vendi.ts";
import { normals } from "./data.ts";

const RBF = { kernel: "rbf", gamma: 0.5 } as const;

function padColumns(x: Float32Array, n: number, d: number, wide: number): Float32Array {
  const out = new Float32Array(n * wide);
  for (let i = 0; i < n; i++) out.set(x.subarray(i * d, (i + 1) * d), i * wide);
  return out;
}

describe("vendiScore", () => {
  test("n identical rows count as 1", () => {
    const x = new Float32Array(9 * 4).map((_, i) => [1, -2, 3, 0.5][i % 4]);
    expect(vendiScore(x, 9, 4)).toBeCloseTo(1, 13);
    expect(vendiScore(x, 9, 4, RBF)).toBeCloseTo(1, 12);
  });

  test("n orthogonal rows count as n, whatever their lengths", () => {
    const n = 6;
    const x = new Float32Array(n * n);
    for (let i = 0; i < n; i++) x[i * n + i] = i + 1;
    expect(vendiScore(x, n, n)).toBeCloseTo(n, 12);
  });

  test("two groups of 3 and 1 rows: exp of the entropy of (3/4, 1/4)", () => {
    const x = Float32Array.of(1, 0, 2, 0, 3, 0, 0, 1);
    expect(vendiScore(x, 4, 2)).toBeCloseTo(Math.exp(-0.75 * Math.log(0.75) - 0.25 * Math.log(0.25)), 13);
  });

  test("rbf on two points: eigenvalues (1 +- e^-gamma r^2) / 2", () => {
    const p = (1 + Math.exp(-0.5 * 4)) / 2;
    expect(vendiScore(Float32Array.of(1, 3), 2, 1, RBF)).toBeCloseTo(
      Math.exp(-p * Math.log(p) - (1 - p) * Math.log(1 - p)),
      13,
    );
  });

  test("rows far apart under rbf count as n", () => {
    expect(vendiScore(Float32Array.from({ length: 10 }, (_, i) => 100 * i), 10, 1, RBF)).toBeCloseTo(10, 11);
  });

  test("the d x d route equals the n x n route", () => {
    const [n, d] = [30, 6];
    const x = normals(n * d, 8);
    expect(vendiScore(x, n, d)).toBeCloseTo(vendiScore(padColumns(x, n, d, n + 3), n, n + 3), 11);
  });

  test("bad input has a code", () => {
    const n = VENDI_RBF_MAX_ROWS + 1;
    expect(() => vendiScore(new Float32Array(n), n, 1, RBF)).toThrow(expect.objectContaining({ code: "E_ARG" }));
    expect(() => vendiScore(normals(4, 1), 4, 1, { kernel: "rbf", gamma: 0 })).toThrow(
      expect.objectContaining({ code: "E_ARG" }),
    );
    expect(() => vendiScore(new Float32Array(4), 2, 2)).toThrow(expect.objectContaining({ code: "E_ARG" }));
    expect(() => vendiScore(new Float32Array(4), 3, 2)).toThrow(expect.objectContaining({ code: "E_SHAPE" }));
    expect(() => vendiScore(Float32Array.of(NaN), 1, 1)).toThrow(expect.objectContaining({ code: "E_NONFINITE" }));
  });
});

describe("withinPromptVendi", () => {
  test("is the plain mean of the labels' scores, in any row order", () => {
    // Label 7: two orthogonal rows (2). Label 3: two equal rows (1). Label 0: one row (1).
    const x = Float32Array.of(1, 0, 1, 1, 0, 2, 3, 3, 5, 5);
    expect(withinPromptVendi(x, [7, 3, 7, 3, 0], [5, 2])).toBeCloseTo(4 / 3, 13);
  });

  test("collapse within a prompt is seen although all rows together look diverse", () => {
    const x = Float32Array.of(1, 0, 1, 0, 0, 1, 0, 1);
    expect(vendiScore(x, 4, 2)).toBeCloseTo(2, 13);
    expect(withinPromptVendi(x, [0, 0, 1, 1], [4, 2])).toBeCloseTo(1, 13);
  });

  test("labels must match the rows", () => {
    expect(() => withinPromptVendi(normals(4, 1), [0], [2, 2])).toThrow(expect.objectContaining({ code: "E_SHAPE" }));
  });
});
