import { RcmError } from "../error.ts";
import type { Op } from "../op.ts";
import { expectShape, ptrOf, type Tensor } from "../tensor.ts";
import type { Tape, Var } from "../tape.ts";

interface SqLossParams {
  /** Constants of x's shape; null: 0. */
  target: Tensor | null;
  delta: Tensor | null;
  /** Per-sample weights, host. */
  weight: Float64Array;
}

function sizes([x]: (Tensor | null)[], p: SqLossParams) {
  const X = x as Tensor;
  const B = X.shape[0];
  if (p.target) expectShape("sq_loss", "target", p.target, X.shape);
  if (p.delta) expectShape("sq_loss", "delta", p.delta, X.shape);
  if (p.weight.length !== B) throw new RcmError("E_SHAPE", "one weight a sample", { op: "sq_loss", want: B, got: p.weight.length });
  return { X, B, N: B === 0 ? 0 : X.numel / B, target: ptrOf(p.target), delta: ptrOf(p.delta) };
}

export const sqLossOp: Op<SqLossParams> = {
  name: "sq_loss",
  forward(x, p) {
    const { X, B, N, target, delta } = sizes(x, p);
    const y = X.device.empty([B], "f64");
    const weight = X.device.fromValues(p.weight, [B], "f64");
    X.device.lib.sqLossFwd({ x: X.ptr, target, delta, weight: weight.ptr, loss: y.ptr, B, N, dtype: X.code });
    return { y, own: [weight] };
  },
  jvp(x, [xDot], p) {
    const { X, B, N, target, delta } = sizes(x, p);
    const y = X.device.empty([B], "f64");
    const yDot = X.device.empty([B], "f64");
    const weight = X.device.fromValues(p.weight, [B], "f64");
    X.device.lib.sqLossJvp({
      x: X.ptr, target, delta, weight: weight.ptr, xDot: (xDot as Tensor).ptr, loss: y.ptr, lossDot: yDot.ptr, B, N,
      dtype: X.code,
    });
    return { y, yDot, own: [weight] };
  },
  vjp(bar, yBar, x, _y, [weight], p) {
    const { X, B, N, target, delta } = sizes(x, p);
    const xBar = X.device.empty(X.shape, X.dtype);
    X.device.lib.sqLossVjp({
      x: X.ptr, target, delta, weight: weight.ptr, lossBar: yBar.ptr, xBar: xBar.ptr, B, N, dtype: X.code,
    });
    bar.put(0, xBar);
  },
};

/**
 * loss[b] = weight[b] * sum((x - target - delta)^2), residual formed in f64; target and delta carry no gradient.
 * Shapes: x [B, ...] -> [B] f64. Grad: x.
 */
export const sqLoss = (tape: Tape, x: Var, p: SqLossParams): Var => tape.run(sqLossOp, [x], p);
