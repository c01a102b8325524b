import { hostValues } from "../dtype.ts";
import { symmetricEigen } from "../metrics/eigen.ts";
import { times, timesTransposed, transposedTimes } from "../ops/nondiff/matmul.ts";
import { sampleReduce, type Tensor } from "../tensor.ts";

/**
 * Truncated singular value decomposition by randomised subspace iteration, all products on the device in f64. The small
 * symmetric problems [l, l] are solved on the host. Source: Halko, Martinsson, Tropp, arXiv 0909.4061, algorithms 4.4
 * and 5.1.
 */
export interface LowRank {
  /** up [N, rank] down [rank, K], f64, both carrying the square root of the singular values. */
  up: Tensor;
  down: Tensor;
  /** Singular values kept, largest first. */
  sigma: Float64Array;
}

/** Oversampling: extra vectors beyond the rank make those of the rank converge faster. */
const OVERSAMPLE = 10;
/** Power iterations; two bring a slowly decaying spectrum within a percent of the optimum. */
const ROUNDS = 2;
/** Relative eigenvalue below which a direction is rounding error: in a basis (by its Gram matrix) and in the result. */
const BASIS_FLOOR = 1e-15;
const FLOOR = 1e-26;

/** Eigenvectors of a Gram matrix above a floor, largest first: rows [kept, l], each times `weigh(eigenvalue)`. */
function leading(
  gram: Tensor,
  most: number,
  floor: number,
  weigh: (value: number) => number,
): { rows: Tensor; values: Float64Array } {
  const l = gram.shape[0];
  const { values, vectors } = symmetricEigen(hostValues(gram.toHost()), l);
  const order = Array.from({ length: l }, (_, i) => l - 1 - i)
    .filter((i) => values[i] > floor * values[l - 1] && values[i] > 0)
    .slice(0, most);
  const rows = new Float64Array(order.length * l);
  order.forEach((from, to) => {
    for (let j = 0; j < l; j++) rows[to * l + j] = vectors[from * l + j] * weigh(values[from]);
  });
  return {
    rows: gram.device.fromValues(rows, [order.length, l], "f64"),
    values: Float64Array.from(order, (i) => values[i]),
  };
}

const inverseRoot = (v: number): number => 1 / Math.sqrt(v);

/** Orthonormal basis of the columns of y [N, l], fewer if y is rank-deficient. Done twice to recover lost precision. */
function orthonormalColumns(y: Tensor): Tensor {
  let q = y;
  for (let pass = 0; pass < 2; pass++)
    q = timesTransposed(q, leading(transposedTimes(q, q), q.shape[1], BASIS_FLOOR, inverseRoot).rows);
  return q;
}

/**
 * The best approximation of rank at most `rank`, up to the accuracy of the iteration; exact for matrices of that rank.
 * Null for a zero matrix. Deterministic. Shapes: matrix [N, K] f64.
 */
export function lowRank(matrix: Tensor, rank: number): LowRank | null {
  const { device } = matrix;
  const [N, K] = matrix.shape;
  const l = Math.min(rank + OVERSAMPLE, N, K);
  using scope = device.scope();
  let y = timesTransposed(matrix, device.randn([l, K], "f64", 20_250, 7));
  if (sampleReduce(y.view([1, y.numel]), "max")[0] === 0) return null;
  for (let round = 0; round < ROUNDS; round++) {
    const rows = transposedTimes(orthonormalColumns(y), matrix);
    const gram = timesTransposed(rows, rows);
    // Rows are orthonormalised before the next product, else all would converge to the largest direction.
    y = timesTransposed(matrix, times(leading(gram, gram.shape[0], BASIS_FLOOR, inverseRoot).rows, rows));
  }
  const q = orthonormalColumns(y);
  const rows = transposedTimes(q, matrix);
  const gram = timesTransposed(rows, rows);
  const up = leading(gram, rank, FLOOR, (v) => v ** 0.25);
  const down = leading(gram, rank, FLOOR, (v) => v ** -0.25);
  return {
    up: scope.keep(timesTransposed(q, up.rows)),
    down: scope.keep(times(down.rows, rows)),
    sigma: up.values.map(Math.sqrt),
  };
}
