import { RcmError } from "../error.ts";
import { onlyTangent, type Op } from "../op.ts";
import { expectLike, ptrOf, type Tensor } from "../tensor.ts";
import type { Tape, Var } from "../tape.ts";

interface SqLossParams {
  /** Constants of x's shape; null: 0. */
  target: Tensor | null;
  delta: Tensor | null;
  /** Weights per sample, or per frame, on the host. */
  weight: Float64Array;
}

function check(x: Tensor, { target, delta, weight }: SqLossParams): number {
  const op = "sq_loss";
  const [B, T] = [x.shape[0], x.shape[1] ?? 1];
  if (target) expectLike(op, "target", target, x);
  if (delta) expectLike(op, "delta", delta, x);
  if (weight.length !== B && weight.length !== B * T) {
    const want = `${B} or ${B * T}`;
    throw new RcmError("E_SHAPE", "one weight per sample or per frame", { op, want, got: weight.length });
  }
  return weight.length;
}

/** Constants of the loss, with the weights on the device. Shapes: weight [B] f64. */
interface SqLossConstants {
  target: Tensor | null;
  delta: Tensor | null;
  weight: Tensor;
}

function fields(x: Tensor, { target, delta, weight }: SqLossConstants) {
  const B = weight.numel;
  return {
    x: x.ptr, target: ptrOf(target), delta: ptrOf(delta), weight: weight.ptr, B, N: B === 0 ? 0 : x.numel / B,
    dtype: x.code,
  };
}

/** The kernels, for weights already on the device. */
export const sqLossKernels = {
  forward(x: Tensor, c: SqLossConstants, loss: Tensor): void {
    x.device.lib.sqLossFwd({ ...fields(x, c), loss: loss.ptr });
  },
  jvp(x: Tensor, xDot: Tensor, c: SqLossConstants, out: { loss: Tensor; lossDot: Tensor }): void {
    x.device.lib.sqLossJvp({ ...fields(x, c), xDot: xDot.ptr, loss: out.loss.ptr, lossDot: out.lossDot.ptr });
  },
  vjp(x: Tensor, c: SqLossConstants, lossBar: Tensor, xBar: Tensor): void {
    x.device.lib.sqLossVjp({ ...fields(x, c), lossBar: lossBar.ptr, xBar: xBar.ptr });
  },
};

/** The vjp reuses the uploaded weights. */
export const sqLossOp: Op<[x: Tensor], SqLossParams, readonly [weight: Tensor]> = {
  name: "sq_loss",
  forward([x], p) {
    const B = check(x, p);
    const y = x.device.empty([B], "f64");
    const weight = x.device.fromValues(p.weight, [B], "f64");
    sqLossKernels.forward(x, { ...p, weight }, y);
    return { y, saved: [weight] };
  },
  jvp([x], dots, p) {
    const xDot = onlyTangent("sq_loss", dots);
    const B = check(x, p);
    const y = x.device.empty([B], "f64");
    const yDot = x.device.empty([B], "f64");
    const weight = x.device.fromValues(p.weight, [B], "f64");
    sqLossKernels.jvp(x, xDot, { ...p, weight }, { loss: y, lossDot: yDot });
    return { y, yDot, saved: [weight] };
  },
  vjp(bar, yBar, [x], _y, [weight], p) {
    const xBar = x.device.empty(x.shape, x.dtype);
    sqLossKernels.vjp(x, { ...p, weight }, yBar, xBar);
    bar.put(0, xBar);
  },
};

/**
 * loss[b] = weight[b] * sum((x - target - delta)^2), residual formed in f64; target and delta carry no gradient.
 * Shapes: x [B, ...], weight [B] -> [B] f64; or x [B, T, ...], weight [B * T] -> [B * T]. Grad: x.
 */
export const sqLoss = (tape: Tape, x: Var, p: SqLossParams): Var => tape.run(sqLossOp, [x], p);
