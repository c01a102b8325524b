import { describe, expect, test } from "bun:test";
import { symmetricEigen, symmetricEigenvalues } from "../../../core/metrics/eigen.ts";
import { columnGram, matmul, matmulTransposed, trace } from "../../../core/metrics/matrix.ts";
import { lcg, normals } from "./data.ts";

function symmetric(n: number, seed: number): Float64Array {
  const a = Float64Array.from(normals(n * n, seed));
  for (let i = 0; i < n; i++) for (let j = 0; j < i; j++) a[i * n + j] = a[j * n + i];
  return a;
}

/** Largest error of V^T diag(values) V - A and of V V^T - I. */
function residual(a: Float64Array, n: number): number {
  const { values, vectors } = symmetricEigen(a, n);
  let worst = 0;
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      let back = 0;
      let dot = 0;
      for (let k = 0; k < n; k++) {
        back += vectors[k * n + i] * values[k] * vectors[k * n + j];
        dot += vectors[i * n + k] * vectors[j * n + k];
      }
      worst = Math.max(worst, Math.abs(back - a[i * n + j]), Math.abs(dot - (i === j ? 1 : 0)));
    }
  }
  return worst;
}

describe("symmetricEigen", () => {
  for (const n of [1, 2, 3, 4, 7, 16, 65, 128]) {
    test(`reconstructs and is orthogonal, n = ${n}`, () => {
      const a = symmetric(n, n);
      expect(residual(a, n)).toBeLessThan(1e-14 * (n + 4));
      const { values } = symmetricEigen(a, n);
      for (let i = 1; i < n; i++) expect(values[i]).toBeGreaterThanOrEqual(values[i - 1]);
      const only = symmetricEigenvalues(a, n);
      for (let i = 0; i < n; i++) expect(Math.abs(only[i] - values[i])).toBeLessThan(1e-12);
    });
  }

  test("degenerate spectra: zero, identity, diagonal with repeats, rank one, low rank", () => {
    const n = 12;
    const identity = new Float64Array(n * n);
    const repeats = new Float64Array(n * n);
    for (let i = 0; i < n; i++) {
      identity[i * n + i] = 1;
      repeats[i * n + i] = i % 3;
    }
    expect(residual(new Float64Array(n * n), n)).toBe(0);
    expect(residual(identity, n)).toBe(0);
    expect(residual(repeats, n)).toBe(0);
    const ones = new Float64Array(n * n).fill(1);
    expect(residual(ones, n)).toBeLessThan(1e-13);
    expect(symmetricEigenvalues(ones, n)[n - 1]).toBeCloseTo(n, 12);
    const lowRank = columnGram(Float64Array.from(normals(3 * n, 5)), 3, n);
    expect(residual(lowRank, n)).toBeLessThan(1e-13);
    const values = symmetricEigenvalues(lowRank, n);
    for (let i = 0; i < n - 3; i++) expect(Math.abs(values[i])).toBeLessThan(1e-13);
  });

  test("a cluster of equal eigenvalues in a random basis", () => {
    const n = 24;
    const { vectors } = symmetricEigen(symmetric(n, 99), n);
    const a = new Float64Array(n * n);
    for (let k = 0; k < n; k++) {
      const value = k < 20 ? 2 : -1;
      for (let i = 0; i < n; i++)
        for (let j = 0; j < n; j++) a[i * n + j] += value * vectors[k * n + i] * vectors[k * n + j];
    }
    expect(residual(a, n)).toBeLessThan(1e-13);
    symmetricEigenvalues(a, n).forEach((value, i) => expect(value).toBeCloseTo(i < 4 ? -1 : 2, 12));
  });

  test("known values: the second-difference matrix has 2 - 2 cos(k pi / (n + 1))", () => {
    const n = 50;
    const a = new Float64Array(n * n);
    for (let i = 0; i < n; i++) {
      a[i * n + i] = 2;
      if (i > 0) a[i * n + i - 1] = a[(i - 1) * n + i] = -1;
    }
    symmetricEigenvalues(a, n).forEach((value, i) =>
      expect(value).toBeCloseTo(2 - 2 * Math.cos(((i + 1) * Math.PI) / (n + 1)), 13),
    );
  });

  test("very large and very small matrices keep their digits", () => {
    for (const scale of [1e-300, 1e-160, 1e160, 1e300]) {
      const values = symmetricEigenvalues(Float64Array.from([2, 1, 0, 1, 2, 1, 0, 1, 2], (v) => v * scale), 3);
      [2 - Math.SQRT2, 2, 2 + Math.SQRT2].forEach((want, i) => expect(values[i] / scale).toBeCloseTo(want, 12));
    }
  });

  // Its small eigenvalues are round-off of the large ones; QL sweeps that only compare neighbours would never end on
  // most of these.
  test("Gram matrices of three directions and faint noise converge, and keep their precision", () => {
    const [n, rows, rank] = [74, 128, 3];
    for (let seed = 0; seed < 12; seed++) {
      const noise = normals(rows * n, 100 + seed);
      const [u, v] = [normals(rows * rank, 200 + seed), normals(rank * n, 300 + seed)];
      const m = Float64Array.from(noise, (x) => 1e-7 * x);
      for (let i = 0; i < rows; i++)
        for (let j = 0; j < n; j++) for (let p = 0; p < rank; p++) m[i * n + j] += u[i * rank + p] * v[p * n + j];
      const gram = columnGram(m, rows, n);
      expect(residual(gram, n)).toBeLessThan(1e-14 * trace(gram, n));
    }
  });

  test("the lower triangle is not read and the input is not written", () => {
    const a = Float64Array.from([2, 1, 777, 3]);
    const values = symmetricEigenvalues(a, 2);
    expect(values[0] + values[1]).toBeCloseTo(5, 14);
    expect(values[0] * values[1]).toBeCloseTo(5, 13);
    expect([...a]).toEqual([2, 1, 777, 3]);
  });

  test("bad input has a code", () => {
    expect(() => symmetricEigen(new Float64Array(3), 2)).toThrow(expect.objectContaining({ code: "E_SHAPE" }));
    expect(() => symmetricEigen(new Float64Array(0), 0)).toThrow(expect.objectContaining({ code: "E_ARG" }));
    expect(() => symmetricEigen(Float64Array.from([1, NaN, NaN, 1]), 2)).toThrow(
      expect.objectContaining({ code: "E_NONFINITE" }),
    );
  });
});

test("matrix helpers agree with each other", () => {
  const random = lcg(3);
  const a = Float64Array.from({ length: 12 }, random);
  const b = Float64Array.from({ length: 20 }, random);
  const bT = new Float64Array(20);
  for (let i = 0; i < 4; i++) for (let j = 0; j < 5; j++) bT[j * 4 + i] = b[i * 5 + j];
  expect([...matmul(a, b, [3, 4, 5])]).toEqual([...matmulTransposed(a, bT, [3, 4, 5])]);
  const gram = columnGram(a, 3, 4);
  let squares = 0;
  for (const value of a) squares += value * value;
  expect(trace(gram, 4)).toBeCloseTo(squares, 14);
});
