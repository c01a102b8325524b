import type { Op } from "../op.ts";
import { expectDType, expectShape, type Tensor } from "../tensor.ts";
import type { Tape, Var } from "../tape.ts";

interface CrossEntropyParams {
  /** Class of each sample, i32 [B]. */
  label: Tensor;
}

function sizes([x]: (Tensor | null)[], p: CrossEntropyParams) {
  const X = x as Tensor;
  const [B, N] = X.shape;
  expectShape("cross_entropy", "x", X, [B, N]);
  expectShape("cross_entropy", "label", p.label, [B]);
  expectDType("cross_entropy", "label", p.label, "i32");
  return { X, B, N };
}

export const crossEntropyOp: Op<CrossEntropyParams> = {
  name: "cross_entropy",
  forward(x, p) {
    const { X, B, N } = sizes(x, p);
    const y = X.device.empty([B], "f64");
    X.device.lib.crossEntropyFwd({ x: X.ptr, label: p.label.ptr, loss: y.ptr, B, N, dtype: X.code });
    return { y, own: [] };
  },
  jvp(x, [xDot], p) {
    const { X, B, N } = sizes(x, p);
    const y = X.device.empty([B], "f64");
    const yDot = X.device.empty([B], "f64");
    X.device.lib.crossEntropyJvp({
      x: X.ptr, label: p.label.ptr, xDot: (xDot as Tensor).ptr, loss: y.ptr, lossDot: yDot.ptr, B, N, dtype: X.code,
    });
    return { y, yDot, own: [] };
  },
  vjp(bar, yBar, x, _y, _own, p) {
    const { X, B, N } = sizes(x, p);
    const xBar = X.device.empty(X.shape, X.dtype);
    X.device.lib.crossEntropyVjp({
      x: X.ptr, label: p.label.ptr, lossBar: yBar.ptr, xBar: xBar.ptr, B, N, dtype: X.code,
    });
    bar.put(0, xBar);
  },
};

/** Softmax cross entropy against class labels. Shapes: x [B, N], label [B] -> [B] f64. Grad: x. */
export const crossEntropy = (tape: Tape, x: Var, label: Tensor): Var => tape.run(crossEntropyOp, [x], { label });
