import type { DType } from "../dtype.ts";
import type { Op } from "../op.ts";
import { expectShape, type Tensor } from "../tensor.ts";
import type { Tape, Var } from "../tape.ts";

interface LinearParams {
  /** dtype of y; null: that of x. */
  dtype: DType | null;
}

/** Sizes of x [..., K] against w [N, K] and b [N]. Throws: E_SHAPE. */
export function linearSizes(op: string, [x, w, b]: (Tensor | null)[]): { X: Tensor; W: Tensor; M: number; N: number; K: number; shape: number[] } {
  const [X, W] = [x as Tensor, w as Tensor];
  const [N, K] = [W.shape[0], X.shape[X.shape.length - 1]];
  expectShape(op, "w", W, [N, K]);
  if (b) expectShape(op, "b", b, [N]);
  return { X, W, M: X.numel / K, N, K, shape: [...X.shape.slice(0, -1), N] };
}

export const linearOp: Op<LinearParams> = {
  name: "linear",
  costly: "matmul",
  forward(x, { dtype }) {
    const { X, W, M, N, K, shape } = linearSizes("linear", x);
    const y = X.device.empty(shape, dtype ?? X.dtype);
    X.device.lib.linearFwd({
      x: X.ptr, w: W.ptr, b: x[2]?.ptr ?? 0, y: y.ptr, M, N, K, xDtype: X.code, wDtype: W.code, yDtype: y.code,
    });
    return { y, own: [] };
  },
  jvp(x, [xDot], { dtype }) {
    const { X, W, M, N, K, shape } = linearSizes("linear", x);
    const y = X.device.empty(shape, dtype ?? X.dtype);
    const yDot = X.device.empty(shape, y.dtype);
    X.device.lib.linearJvp({
      x: X.ptr, w: W.ptr, b: x[2]?.ptr ?? 0, xDot: (xDot as Tensor).ptr, y: y.ptr, yDot: yDot.ptr, M, N, K,
      xDtype: X.code, wDtype: W.code, yDtype: y.code,
    });
    return { y, yDot, own: [] };
  },
  vjp(bar, yBar, x) {
    const { X, W, M, N, K } = linearSizes("linear", x);
    const xBar = bar.need(0) ? X.device.empty(X.shape, X.dtype) : null;
    const wBar = bar.need(1) ? bar.accumulate(1) : null;
    const bBar = x[2] && bar.need(2) ? bar.accumulate(2) : null;
    X.device.lib.linearVjp({
      x: X.ptr, w: W.ptr, yBar: yBar.ptr, xBar: xBar?.ptr ?? 0, wBar: wBar?.ptr ?? 0, bBar: bBar?.ptr ?? 0, M, N, K,
      xDtype: X.code, wDtype: W.code, yDtype: yBar.code,
    });
    if (xBar) bar.put(0, xBar);
  },
};

/** y = x w^T + b. Shapes: x [..., K], w [N, K], b [N] or null -> [..., N]. Grad: x; w and b accumulate. */
export const linear = (tape: Tape, x: Var, w: Var, b: Var | null, dtype: DType | null = null): Var => tape.run(linearOp, [x, w, b], { dtype });
