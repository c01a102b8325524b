import type { Code } from "../../ffi/call.ts";
import type { DType } from "../dtype.ts";
import type { Op } from "../op.ts";
import { expectShape, statDType, type Tensor } from "../tensor.ts";
import type { Tape, Var } from "../tape.ts";

interface LayerNormParams {
  eps: number;
  /** dtype of y; null: that of x. */
  dtype: DType | null;
}

function sizes([x, w, b]: (Tensor | null)[]): { X: Tensor; M: number; N: number; wCode: Code } {
  const X = x as Tensor;
  const N = X.shape[X.shape.length - 1];
  if (w) expectShape("layer_norm", "w", w, [N]);
  if (b) expectShape("layer_norm", "b", b, [N]);
  return { X, M: X.numel / N, N, wCode: (w ?? b ?? X).code };
}

export const layerNormOp: Op<LayerNormParams> = {
  name: "layer_norm",
  forward(x, { eps, dtype }) {
    const { X, M, N, wCode } = sizes(x);
    const y = X.device.empty(X.shape, dtype ?? X.dtype);
    const [mean, rstd] = [X.device.empty([M], statDType(X.dtype)), X.device.empty([M], statDType(X.dtype))];
    X.device.lib.layerNormFwd({
      x: X.ptr, w: x[1]?.ptr ?? 0, b: x[2]?.ptr ?? 0, y: y.ptr, mean: mean.ptr, rstd: rstd.ptr, M, N, eps,
      xDtype: X.code, wDtype: wCode, yDtype: y.code,
    });
    return { y, own: [mean, rstd] };
  },
  jvp(x, [xDot], { eps, dtype }) {
    const { X, M, N, wCode } = sizes(x);
    const y = X.device.empty(X.shape, dtype ?? X.dtype);
    const yDot = X.device.empty(X.shape, y.dtype);
    const [mean, rstd] = [X.device.empty([M], statDType(X.dtype)), X.device.empty([M], statDType(X.dtype))];
    X.device.lib.layerNormJvp({
      x: X.ptr, w: x[1]?.ptr ?? 0, b: x[2]?.ptr ?? 0, xDot: (xDot as Tensor).ptr, y: y.ptr, yDot: yDot.ptr,
      mean: mean.ptr, rstd: rstd.ptr, M, N, eps, xDtype: X.code, wDtype: wCode, yDtype: y.code,
    });
    return { y, yDot, own: [mean, rstd] };
  },
  vjp(bar, yBar, x, _y, [mean, rstd]) {
    const { X, M, N, wCode } = sizes(x);
    const xBar = bar.need(0) ? X.device.empty(X.shape, X.dtype) : null;
    const wBar = x[1] && bar.need(1) ? bar.accumulate(1) : null;
    const bBar = x[2] && bar.need(2) ? bar.accumulate(2) : null;
    X.device.lib.layerNormVjp({
      x: X.ptr, w: x[1]?.ptr ?? 0, mean: mean.ptr, rstd: rstd.ptr, yBar: yBar.ptr, xBar: xBar?.ptr ?? 0,
      wBar: wBar?.ptr ?? 0, bBar: bBar?.ptr ?? 0, M, N, xDtype: X.code, wDtype: wCode, yDtype: yBar.code,
    });
    if (xBar) bar.put(0, xBar);
  },
};

/** Layer norm over the last axis with optional affine. Shapes: x [..., N], w, b [N] or null. Grad: x; w and b accumulate. */
export const layerNorm = (tape: Tape, x: Var, w: Var | null, b: Var | null, eps: number, dtype: DType | null = null): Var =>
  tape.run(layerNormOp, [x, w, b], { eps, dtype });
