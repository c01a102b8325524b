import { RcmError } from "../error.ts";
import { onlyTangent, type Op } from "../op.ts";
import { expectLike, ptrOf, type Tensor } from "../tensor.ts";
import type { Tape, Var } from "../tape.ts";

interface SqLossParams {
  /** Constants of x's shape; null: 0. */
  target: Tensor | null;
  delta: Tensor | null;
  /** Per-sample weights, host. */
  weight: Float64Array;
}

function sizesOf(x: Tensor, { target, delta, weight }: SqLossParams) {
  const op = "sq_loss";
  const B = x.shape[0];
  if (target) expectLike(op, "target", target, x);
  if (delta) expectLike(op, "delta", delta, x);
  if (weight.length !== B) throw new RcmError("E_SHAPE", "one weight a sample", { op, want: B, got: weight.length });
  return { target: ptrOf(target), delta: ptrOf(delta), B, N: B === 0 ? 0 : x.numel / B, dtype: x.code };
}

/** The weights are saved as they are on the device. */
export const sqLossOp: Op<[x: Tensor], SqLossParams, readonly [weight: Tensor]> = {
  name: "sq_loss",
  forward([x], p) {
    const sizes = sizesOf(x, p);
    const y = x.device.empty([sizes.B], "f64");
    const weight = x.device.fromValues(p.weight, [sizes.B], "f64");
    x.device.lib.sqLossFwd({ x: x.ptr, weight: weight.ptr, loss: y.ptr, ...sizes });
    return { y, saved: [weight] };
  },
  jvp([x], dots, p) {
    const xDot = onlyTangent("sq_loss", dots);
    const sizes = sizesOf(x, p);
    const y = x.device.empty([sizes.B], "f64");
    const yDot = x.device.empty([sizes.B], "f64");
    const weight = x.device.fromValues(p.weight, [sizes.B], "f64");
    x.device.lib.sqLossJvp({
      x: x.ptr, weight: weight.ptr, xDot: xDot.ptr, loss: y.ptr, lossDot: yDot.ptr, ...sizes,
    });
    return { y, yDot, saved: [weight] };
  },
  vjp(bar, yBar, [x], _y, [weight], p) {
    const sizes = sizesOf(x, p);
    const xBar = x.device.empty(x.shape, x.dtype);
    x.device.lib.sqLossVjp({ x: x.ptr, weight: weight.ptr, lossBar: yBar.ptr, xBar: xBar.ptr, ...sizes });
    bar.put(0, xBar);
  },
};

/**
 * loss[b] = weight[b] * sum((x - target - delta)^2), residual formed in f64; target and delta carry no gradient.
 * Shapes: x [B, ...] -> [B] f64. Grad: x.
 */
export const sqLoss = (tape: Tape, x: Var, p: SqLossParams): Var => tape.run(sqLossOp, [x], p);
