import { onlyTangent, type Op } from "../op.ts";
import { expectDType, expectShape, type Tensor } from "../tensor.ts";
import type { Tape, Var } from "../tape.ts";

interface CrossEntropyParams {
  /** Class of each sample, i32 [B]. */
  label: Tensor;
}

function sizes(x: Tensor, { label }: CrossEntropyParams): { B: number; N: number } {
  const op = "cross_entropy";
  const [B, N] = x.shape;
  expectShape(op, "x", x, [B, N]);
  expectShape(op, "label", label, [B]);
  expectDType(op, "label", label, "i32");
  return { B, N };
}

export const crossEntropyOp: Op<[x: Tensor], CrossEntropyParams> = {
  name: "cross_entropy",
  forward([x], p) {
    const { B, N } = sizes(x, p);
    const y = x.device.empty([B], "f64");
    x.device.lib.crossEntropyFwd({ x: x.ptr, label: p.label.ptr, loss: y.ptr, B, N, dtype: x.code });
    return { y, saved: [] };
  },
  jvp([x], xDots, p) {
    const xDot = onlyTangent("cross_entropy", xDots);
    const { B, N } = sizes(x, p);
    const y = x.device.empty([B], "f64");
    const yDot = x.device.empty([B], "f64");
    x.device.lib.crossEntropyJvp({
      x: x.ptr, label: p.label.ptr, xDot: xDot.ptr, loss: y.ptr, lossDot: yDot.ptr, B, N, dtype: x.code,
    });
    return { y, yDot, saved: [] };
  },
  vjp(bar, yBar, [x], _y, _saved, p) {
    const { B, N } = sizes(x, p);
    const xBar = x.device.empty(x.shape, x.dtype);
    x.device.lib.crossEntropyVjp({
      x: x.ptr, label: p.label.ptr, lossBar: yBar.ptr, xBar: xBar.ptr, B, N, dtype: x.code,
    });
    bar.put(0, xBar);
  },
};

/** Softmax cross entropy against class labels. Shapes: x [B, N], label [B] -> [B] f64. Grad: x. */
export const crossEntropy = (tape: Tape, x: Var, label: Tensor): Var => tape.run(crossEntropyOp, [x], { label });
