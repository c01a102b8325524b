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
    X.device.lib.linearGeluFwd(X.ptr, W.ptr, x[2]?.ptr ?? 0, h?.ptr ?? 0, y.ptr, M, N, K, activationCode(kind), X.code, W.code, y.code);
    return { y, own: h ? [h] : [] };
  },
  jvp(x, [xDot], { kind }, record) {
    const { X, W, M, N, K, shape } = linearSizes("linear_gelu", x);
    const y = X.device.empty(shape, X.dtype);
    const yDot = X.device.empty(shape, X.dtype);
    const h = record ? X.device.empty(shape, X.dtype) : null;
    X.device.lib.linearGeluJvp(X.ptr, W.ptr, x[2]?.ptr ?? 0, (xDot as Tensor).ptr, h?.ptr ?? 0, y.ptr, yDot.ptr, M, N, K, activationCode(kind), X.code, W.code, y.code);
    return { y, yDot, own: h ? [h] : [] };
  },
  vjp(bar, yBar, x, _y, [h], { kind }) {
    const { X, W, M, N, K } = linearSizes("linear_gelu", x);
    const scratch = X.device.empty(yBar.shape, yBar.dtype);
    const xBar = bar.need(0) ? X.device.empty(X.shape, X.dtype) : null;
    const wBar = bar.need(1) ? bar.accumulate(1) : null;
    const bBar = x[2] && bar.need(2) ? bar.accumulate(2) : null;
    X.device.lib.linearGeluVjp(
      X.ptr, W.ptr, h.ptr, yBar.ptr, scratch.ptr, xBar?.ptr ?? 0, wBar?.ptr ?? 0, bBar?.ptr ?? 0,
      M, N, K, activationCode(kind), X.code, W.code, yBar.code,
    );
    scratch.free();
    if (xBar) bar.put(0, xBar);
  },
};

/** y = f(x w^T + b), f = GELU (tanh form) unless told. Shapes: x [..., K], w [N, K], b [N] -> [..., N]. Grad: as linear. */
export const linearGelu = (tape: Tape, x: Var, w: Var, b: Var | null, kind: ActivationKind = "gelu_tanh"): Var =>
  tape.run(linearGeluOp, [x, w, b], { kind });
