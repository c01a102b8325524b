import { describe, expect, test } from "bun:test";
import { symmetricEigen } from "../../../core/metrics/eigen.ts";
import { featureStats, frechetDistance, type FeatureStats } from "../../../core/metrics/frechet.ts";
import { normals } from "./data.ts";

function diagonal(mean: number[], variance: number[]): FeatureStats {
  const d = mean.length;
  const cov = new Float64Array(d * d);
  variance.forEach((value, i) => (cov[i * d + i] = value));
  return { mean: Float64Array.from(mean), cov, n: 100 };
}

describe("featureStats", () => {
  test("mean and unbiased covariance of a small set by hand", () => {
    const { mean, cov, n } = featureStats(Float32Array.from([1, 2, 3, 6, 5, 4]), 3, 2);
    expect(n).toBe(3);
    expect([...mean]).toEqual([3, 4]);
    expect([...cov]).toEqual([4, 2, 2, 4]);
  });

  test("a large common offset does not spoil the covariance", () => {
    const small = Float32Array.from([0, 1, 1, 0, 1, 1, 0, 0]);
    const far = small.map((value) => value + 2 ** 20);
    expect([...featureStats(far, 4, 2).cov]).toEqual([...featureStats(small, 4, 2).cov]);
  });

  test("bad input has a code", () => {
    expect(() => featureStats(new Float32Array(5), 3, 2)).toThrow(expect.objectContaining({ code: "E_SHAPE" }));
    expect(() => featureStats(new Float32Array(2), 1, 2)).toThrow(expect.objectContaining({ code: "E_ARG" }));
    expect(() => featureStats(Float32Array.of(1, NaN), 2, 1)).toThrow(expect.objectContaining({ code: "E_NONFINITE" }));
  });
});

describe("frechetDistance", () => {
  test("diagonal Gaussians: |dmu|^2 + sum (s1 - s2)^2", () => {
    const got = frechetDistance(diagonal([1, 2, 3], [4, 9, 0]), diagonal([0, 2, 5], [1, 16, 25]));
    expect(got).toBeCloseTo(5 + 1 + 1 + 25, 12);
  });

  test("one dimension", () => {
    expect(frechetDistance(diagonal([0], [1]), diagonal([3], [4]))).toBeCloseTo(10, 13);
  });

  test("a set against itself is 0, also with fewer rows than features", () => {
    for (const [n, d] of [[200, 16], [10, 16]]) {
      const stats = featureStats(normals(n * d, 1), n, d);
      expect(frechetDistance(stats, stats)).toBeLessThan(1e-6);
    }
    const full = featureStats(normals(200 * 16, 1), 200, 16);
    expect(frechetDistance(full, full)).toBeLessThan(1e-11);
  });

  test("commuting covariances: the sum over the shared eigenbasis", () => {
    const d = 6;
    const { vectors } = symmetricEigen(featureStats(normals(40 * d, 2), 40, d).cov, d);
    const build = (spectrum: number[]): FeatureStats => {
      const cov = new Float64Array(d * d);
      spectrum.forEach((value, k) => {
        for (let i = 0; i < d; i++)
          for (let j = 0; j < d; j++) cov[i * d + j] += value * vectors[k * d + i] * vectors[k * d + j];
      });
      return { mean: new Float64Array(d), cov, n: 40 };
    };
    const a = [1, 4, 9, 0.25, 2, 3];
    const b = [9, 1, 4, 0.01, 2, 5];
    const want = a.reduce((sum, value, i) => sum + (Math.sqrt(value) - Math.sqrt(b[i])) ** 2, 0);
    expect(frechetDistance(build(a), build(b))).toBeCloseTo(want, 12);
  });

  test("symmetric, and a pure shift gives the squared shift", () => {
    const d = 8;
    const a = featureStats(normals(100 * d, 3), 100, d);
    const b = featureStats(normals(90 * d, 4, 0.3), 90, d);
    expect(frechetDistance(a, b)).toBeCloseTo(frechetDistance(b, a), 11);
    const moved = { ...a, mean: a.mean.map((value, i) => value + i) };
    expect(frechetDistance(a, moved)).toBeCloseTo(140, 10);
  });

  test("bad input has a code", () => {
    expect(() => frechetDistance(diagonal([0], [1]), diagonal([0, 0], [1, 1]))).toThrow(
      expect.objectContaining({ code: "E_SHAPE" }),
    );
    expect(() => frechetDistance(diagonal([NaN], [1]), diagonal([0], [1]))).toThrow(
      expect.objectContaining({ code: "E_NONFINITE" }),
    );
  });
});
