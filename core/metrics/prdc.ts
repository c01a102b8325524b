import { RcmError } from "../error.ts";
import { checkCount, checkFinite } from "./check.ts";
import { eachTile, points, type Points } from "./distance.ts";

export interface Prdc {
  /** Share of fake rows inside the k-nearest-neighbour ball of at least one real row. */
  precision: number;
  /** Share of real rows inside the k-nearest-neighbour ball of at least one fake row. */
  recall: number;
  /** Mean number of real balls around a fake row, over k; 1 when the distributions agree, and it may exceed 1. */
  density: number;
  /** Share of real rows whose k-nearest-neighbour ball contains a fake row. */
  coverage: number;
}

/**
 * Improved precision and recall, density and coverage; the radius of a (closed) ball is the distance of its centre to
 * the k-th nearest other row.
 * Shapes: real [n, d], fake [m, d], both with more than k rows. Throws: E_ARG, E_SHAPE, E_NONFINITE.
 * Source: Kynkaanniemi et al. 2019 (eq. 1 and 2); Naeem et al. 2020 (eq. 3 and 4).
 */
export function prdc(real: Float32Array, fake: Float32Array, d: number, k = 5): Prdc {
  const op = "prdc";
  checkCount(op, "d", d, 1);
  checkCount(op, "k", k, 1);
  const n = rowCount("real", real, d, k);
  const m = rowCount("fake", fake, d, k);
  const origin = real.subarray(0, d);
  const r = points(real, n, d, origin);
  const f = points(fake, m, d, origin);
  const realRadius = kthNearest(r, k);
  const fakeRadius = kthNearest(f, k);

  const ballsAroundFake = new Int32Array(m);
  const realIsRecalled = new Uint8Array(n);
  const realIsCovered = new Uint8Array(n);
  eachTile(r, f, false, (i0, i1, j0, j1, out, stride) => {
    for (let i = i0; i < i1; i++) {
      const radius = realRadius[i];
      for (let j = j0; j < j1; j++) {
        const distance = out[(i - i0) * stride + (j - j0)];
        if (distance <= radius) {
          ballsAroundFake[j]++;
          realIsCovered[i] = 1;
        }
        if (distance <= fakeRadius[j]) realIsRecalled[i] = 1;
      }
    }
  });

  let inside = 0;
  let balls = 0;
  for (const count of ballsAroundFake) {
    if (count > 0) inside++;
    balls += count;
  }
  return {
    precision: inside / m,
    recall: share(realIsRecalled),
    density: balls / (k * m),
    coverage: share(realIsCovered),
  };
}

function rowCount(name: string, x: Float32Array, d: number, k: number): number {
  const n = Math.floor(x.length / d);
  checkFinite("prdc", name, x, n * d);
  if (n <= k) {
    throw new RcmError("E_ARG", `${name} has too few rows for k = ${k}`, { op: "prdc", want: `> ${k}`, got: n });
  }
  return n;
}

/** Squared distance from each row to its k-th nearest other row. */
function kthNearest(p: Points, k: number): Float64Array {
  // The k smallest distances of each row so far, ascending; most candidates fail the first comparison.
  const nearest = new Float64Array(p.n * k).fill(Infinity);
  const offer = (i: number, distance: number): void => {
    const first = i * k;
    let at = first + k - 1;
    if (distance >= nearest[at]) return;
    for (; at > first && nearest[at - 1] > distance; at--) nearest[at] = nearest[at - 1];
    nearest[at] = distance;
  };
  eachTile(p, p, true, (i0, i1, j0, j1, out, stride) => {
    for (let i = i0; i < i1; i++) {
      for (let j = Math.max(j0, i + 1); j < j1; j++) {
        const distance = out[(i - i0) * stride + (j - j0)];
        offer(i, distance);
        offer(j, distance);
      }
    }
  });
  return Float64Array.from({ length: p.n }, (_, i) => nearest[i * k + k - 1]);
}

function share(flags: Uint8Array): number {
  let sum = 0;
  for (const flag of flags) sum += flag;
  return sum / flags.length;
}
