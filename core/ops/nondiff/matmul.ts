import type { Tensor } from "../../tensor.ts";

/** Plain matrix products for linear algebra outside networks; results have the dtype of the first factor. */

/** y = x w^T. Shapes: x [M, K], w [N, K] -> [M, N]. */
export function timesTransposed(x: Tensor, w: Tensor): Tensor {
  const [M, K, N] = [x.shape[0], x.shape[1], w.shape[0]];
  const y = x.device.empty([M, N], x.dtype);
  x.device.lib.linearFwd({
    x: x.ptr, w: w.ptr, b: 0, y: y.ptr, M, N, K, xDtype: x.code, wDtype: w.code, yDtype: y.code,
  });
  return y;
}

/** y = a^T x. Shapes: a [M, N], x [M, K] -> [N, K]. */
export function transposedTimes(a: Tensor, x: Tensor): Tensor {
  const [M, N, K] = [a.shape[0], a.shape[1], x.shape[1]];
  const y = x.device.zeros([N, K], x.dtype);
  // The vjp of linear with respect to the weights alone, which does not read the weights.
  x.device.lib.linearVjp({
    x: x.ptr, w: x.ptr, yBar: a.ptr, xBar: 0, wBar: y.ptr, bBar: 0, M, N, K, xDtype: x.code, wDtype: x.code,
    yDtype: a.code,
  });
  return y;
}

/** y = a x. Shapes: a [M, N], x [N, K] -> [M, K]. */
export function times(a: Tensor, x: Tensor): Tensor {
  const [M, N, K] = [a.shape[0], a.shape[1], x.shape[1]];
  const y = a.device.empty([M, K], a.dtype);
  a.device.lib.linearVjp({
    x: 0, w: x.ptr, yBar: a.ptr, xBar: y.ptr, wBar: 0, bBar: 0, M, N, K, xDtype: a.code, wDtype: x.code, yDtype: a.code,
  });
  return y;
}
