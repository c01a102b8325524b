import { describe, expect, test } from "bun:test";
import { prdc, type Prdc } from "../../../core/metrics/prdc.ts";
import { lcg, normals } from "./data.ts";

/** Straight from the definitions: direct differences, full sorts, no tiles. */
function bruteForce(real: Float32Array, fake: Float32Array, d: number, k: number): Prdc {
  const rows = (x: Float32Array) => Array.from({ length: x.length / d }, (_, i) => [...x.subarray(i * d, (i + 1) * d)]);
  const distance = (a: number[], b: number[]) => a.reduce((sum, value, j) => sum + (value - b[j]) ** 2, 0);
  const radius = (set: number[][]) =>
    set.map((a, i) => set.filter((_, j) => j !== i).map((b) => distance(a, b)).sort((p, q) => p - q)[k - 1]);
  const [r, f] = [rows(real), rows(fake)];
  const [rRadius, fRadius] = [radius(r), radius(f)];
  const balls = f.map((y) => r.filter((x, i) => distance(x, y) <= rRadius[i]).length);
  return {
    precision: balls.filter((count) => count > 0).length / f.length,
    recall: r.filter((x) => f.some((y, j) => distance(x, y) <= fRadius[j])).length / r.length,
    density: balls.reduce((sum, count) => sum + count, 0) / (k * f.length),
    coverage: r.filter((x, i) => f.some((y) => distance(x, y) <= rRadius[i])).length / r.length,
  };
}

describe("prdc", () => {
  for (const [n, m, d, k] of [[6, 7, 1, 2], [40, 33, 3, 5], [65, 130, 5, 3], [128, 64, 9, 1], [129, 67, 2, 10]]) {
    test(`equals brute force, ${n} real, ${m} fake, d = ${d}, k = ${k}`, () => {
      const real = normals(n * d, n);
      const fake = normals(m * d, m + 7, 0.4);
      expect(prdc(real, fake, d, k)).toEqual(bruteForce(real, fake, d, k));
    });
  }

  test("equals brute force with many ties and repeated rows", () => {
    const random = lcg(11);
    for (const k of [1, 2, 5]) {
      const real = Float32Array.from({ length: 70 * 2 }, () => Math.floor(random() * 5));
      const fake = Float32Array.from({ length: 66 * 2 }, () => Math.floor(random() * 5) + 2);
      expect(prdc(real, fake, 2, k)).toEqual(bruteForce(real, fake, 2, k));
    }
  });

  test("identical sets: all 1 apart from density, which counts each row's own ball too", () => {
    const x = normals(80 * 4, 1);
    const got = prdc(x, x.slice(), 4, 5);
    expect([got.precision, got.recall, got.coverage]).toEqual([1, 1, 1]);
    // Each closed ball holds its centre and its k neighbours: (k + 1) / k.
    expect(got.density).toBeCloseTo(6 / 5, 14);
  });

  test("identical sets of one repeated row", () => {
    const got = prdc(new Float32Array(20).fill(3.7), new Float32Array(20).fill(3.7), 2, 3);
    expect([got.precision, got.recall, got.coverage]).toEqual([1, 1, 1]);
  });

  test("sets far apart: all 0", () => {
    expect(prdc(normals(50 * 3, 1), normals(40 * 3, 2, 1000), 3, 5)).toEqual({
      precision: 0, recall: 0, density: 0, coverage: 0,
    });
  });

  test("mode collapse: full precision, little recall and coverage", () => {
    const real = normals(300 * 4, 1);
    const fake = Float32Array.from(normals(300 * 4, 2), (value) => value * 0.05);
    const got = prdc(real, fake, 4);
    expect(got.precision).toBe(1);
    expect(got.recall).toBeLessThan(0.05);
    expect(got.coverage).toBeLessThan(0.3);
  });

  test("bad input has a code", () => {
    const x = normals(30, 1);
    expect(() => prdc(x, x, 4)).toThrow(expect.objectContaining({ code: "E_SHAPE" }));
    expect(() => prdc(x, x.subarray(0, 15), 3, 5)).toThrow(expect.objectContaining({ code: "E_ARG" }));
    expect(() => prdc(x, x, 3, 0)).toThrow(expect.objectContaining({ code: "E_ARG" }));
    expect(() => prdc(x, x.map(() => Infinity), 3)).toThrow(expect.objectContaining({ code: "E_NONFINITE" }));
  });
});
