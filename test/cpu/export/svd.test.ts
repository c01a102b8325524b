import { describe, expect, test } from "bun:test";
import { lowRank } from "../../../core/export/svd.ts";
import { times } from "../../../core/ops/nondiff/matmul.ts";
import { symmetricEigenvalues } from "../../../core/metrics/eigen.ts";
import { Rng } from "../../../core/rng.ts";
import { cpu } from "../../harness/device.ts";

const normal = (n: number, stream: number): Float64Array => {
  const rng = new Rng(3, stream);
  return Float64Array.from({ length: n }, () => rng.normal());
};
const product = (a: Float64Array, b: Float64Array, n: number, r: number, k: number): Float64Array => {
  const out = new Float64Array(n * k);
  for (let i = 0; i < n; i++)
    for (let p = 0; p < r; p++) for (let j = 0; j < k; j++) out[i * k + j] += a[i * r + p] * b[p * k + j];
  return out;
};
const norm = (v: Float64Array): number => Math.sqrt(v.reduce((s, x) => s + x * x, 0));
const difference = (a: Float64Array, b: Float64Array): Float64Array => a.map((v, i) => v - b[i]);

describe("low-rank approximation", () => {
  const device = cpu();
  const matrix = (values: Float64Array, n: number, k: number) => device.fromValues(values, [n, k], "f64");

  test("a matrix of rank r comes back to round-off, wide, tall and square, and no higher rank is claimed", () => {
    for (const [n, k] of [[40, 70], [70, 40], [50, 50]]) {
      const values = product(normal(n * 5, 1), normal(5 * k, 2), n, 5, k);
      for (const rank of [5, 12]) {
        using _scope = device.scope();
        const found = lowRank(matrix(values, n, k), rank);
        if (!found) throw new Error("nothing found");
        expect(found.sigma.length).toBe(5);
        expect([found.up.shape, found.down.shape]).toEqual([[n, 5], [5, k]]);
        expect(norm(difference(times(found.up, found.down).values(), values)) / norm(values)).toBeLessThan(1e-12);
      }
    }
  });

  test("full rank: the error is within two percent of the optimum by all singular values, and they agree", () => {
    const [n, k] = [60, 90];
    // A spectrum that falls like 1/i: the hard case for a randomised method.
    const left = normal(n * n, 4);
    const values = product(
      left.map((v, i) => v / (1 + (i % n))), normal(n * k, 5), n, n, k,
    );
    const gram = new Float64Array(n * n);
    for (let i = 0; i < n; i++)
      for (let j = 0; j < n; j++) for (let p = 0; p < k; p++) gram[i * n + j] += values[i * k + p] * values[j * k + p];
    const exact = symmetricEigenvalues(gram, n)
      .map((v) => Math.sqrt(Math.max(v, 0)))
      .reverse();
    for (const rank of [1, 4, 16]) {
      using _scope = device.scope();
      const found = lowRank(matrix(values, n, k), rank);
      if (!found) throw new Error("nothing found");
      const error = norm(difference(times(found.up, found.down).values(), values));
      const best = norm(exact.slice(rank));
      expect(error / best).toBeGreaterThan(1 - 1e-12);
      expect(error / best).toBeLessThan(1.02);
      found.sigma.forEach((s, i) => expect(Math.abs(s / exact[i] - 1)).toBeLessThan(0.02));
      // Both factors carry the root of the singular values.
      const squares = found.up.values().reduce((s, v) => s + v * v, 0);
      expect(Math.abs(squares / found.sigma.reduce((a, b) => a + b, 0) - 1)).toBeLessThan(1e-6);
    }
  });

  test("rank at or above the smaller side reproduces anything; zero gives nothing; repeats give the same bits", () => {
    using _scope = device.scope();
    const values = normal(7 * 11, 9);
    const all = lowRank(matrix(values, 7, 11), 64);
    expect(all && norm(difference(times(all.up, all.down).values(), values)) / norm(values)).toBeLessThan(1e-12);
    expect(lowRank(matrix(new Float64Array(77), 7, 11), 3)).toBeNull();
    const [a, b] = [lowRank(matrix(values, 7, 11), 3), lowRank(matrix(values, 7, 11), 3)];
    expect(Buffer.compare(a?.up.toHost().data as Uint8Array, b?.up.toHost().data as Uint8Array)).toBe(0);
  });
});
