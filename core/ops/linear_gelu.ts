import type { Op } from "../op.ts";
import type { Tensor } from "../tensor.ts";
import type { Tape, Var } from "../tape.ts";
import { activationCode, type ActivationKind } from "./activation.ts";
import { linearSizes } from "./linear.ts";

interface LinearGeluParams {
  kind: ActivationKind;
}

export const linearGeluOp: Op<LinearGeluParams> = {
  name: "linear_gelu",
  costly: "matmul",
  forward(x, { kind }, record) {
    const { X, W, M, N, K, shape } = linearSizes("linear_gelu", x);
    const y = X.device.empty(shape, X.dtype);
    const h = record ? X.device.empty(shape, X.dtype) : null;
    X.device.lib.linearGeluFwd({
      x: X.ptr, w: W.ptr, b: x[2]?.ptr ?? 0, h: h?.ptr ?? 0, y: y.ptr, M, N, K, kind: activationCode(kind),
      xDtype: X.code, wDtype: W.code, yDtype: y.code,
    });
    return { y, own: h ? [h] : [] };
  },
  jvp(x, [xDot], { kind }, record) {
    const { X, W, M, N, K, shape } = linearSizes("linear_gelu", x);
    const y = X.device.empty(shape, X.dtype);
    const yDot = X.device.empty(shape, X.dtype);
    const h = record ? X.device.empty(shape, X.dtype) : null;
    X.device.lib.linearGeluJvp({
      x: X.ptr, w: W.ptr, b: x[2]?.ptr ?? 0, xDot: (xDot as Tensor).ptr, h: h?.ptr ?? 0, y: y.ptr, yDot: yDot.ptr, M, N,
      K, kind: activationCode(kind), xDtype: X.code, wDtype: W.code, yDtype: y.code,
    });
    return { y, yDot, own: h ? [h] : [] };
  },
  vjp(bar, yBar, x, _y, [h], { kind }) {
    const { X, W, M, N, K } = linearSizes("linear_gelu", x);
    const scratch = X.device.empty(yBar.shape, yBar.dtype);
    const xBar = bar.need(0) ? X.device.empty(X.shape, X.dtype) : null;
    const wBar = bar.need(1) ? bar.accumulate(1) : null;
    const bBar = x[2] && bar.need(2) ? bar.accumulate(2) : null;
    X.device.lib.linearGeluVjp({
      x: X.ptr, w: W.ptr, h: h.ptr, yBar: yBar.ptr, scratch: scratch.ptr, xBar: xBar?.ptr ?? 0, wBar: wBar?.ptr ?? 0,
      bBar: bBar?.ptr ?? 0, M, N, K, kind: activationCode(kind), xDtype: X.code, wDtype: W.code, yDtype: yBar.code,
    });
    scratch.free();
    if (xBar) bar.put(0, xBar);
  },
};

/** y = f(x w^T + b), f = GELU (tanh form) unless told. Shapes: x [..., K], w [N, K], b [N] -> [..., N]. Grad: as linear. */
export const linearGelu = (tape: Tape, x: Var, w: Var, b: Var | null, kind: ActivationKind = "gelu_tanh"): Var =>
  tape.run(linearGeluOp, [x, w, b], { kind });
