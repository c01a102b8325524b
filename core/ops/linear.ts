import type { DType } from "../dtype.ts";
import { onlyTangent, type Op } from "../op.ts";
import { expectDType, expectShape, ptrOf, type Tensor } from "../tensor.ts";
import type { Tape, Var } from "../tape.ts";

interface LinearParams {
  /** dtype of y; null: that of x. */
  dtype: DType | null;
}

/** Weight and bias of a linear layer. */
export interface Weights {
  w: Var;
  b: Var | null;
}

export type LinearInputs = [x: Tensor, w: Tensor, b: Tensor | null];

/** Sizes and codes of x [..., K] against w [N, K] and b [N], and the shape of the product. Throws: E_SHAPE, E_DTYPE. */
export function linearSizes(op: string, [x, w, b]: LinearInputs) {
  const [N, K] = [w.shape[0], x.shape[x.shape.length - 1]];
  expectShape(op, "w", w, [N, K]);
  if (b) {
    expectShape(op, "b", b, [N]);
    expectDType(op, "b", b, w.dtype);
  }
  return { sizes: { M: x.numel / K, N, K, xDtype: x.code, wDtype: w.code }, shape: [...x.shape.slice(0, -1), N] };
}

export const linearOp: Op<LinearInputs, LinearParams> = {
  name: "linear",
  costly: "matmul",
  forward(inputs, { dtype }) {
    const [x, w, b] = inputs;
    const { sizes, shape } = linearSizes("linear", inputs);
    const y = x.device.empty(shape, dtype ?? x.dtype);
    x.device.lib.linearFwd({ x: x.ptr, w: w.ptr, b: ptrOf(b), y: y.ptr, yDtype: y.code, ...sizes });
    return { y, saved: [] };
  },
  jvp(inputs, dots, { dtype }) {
    const [x, w, b] = inputs;
    const xDot = onlyTangent("linear", dots);
    const { sizes, shape } = linearSizes("linear", inputs);
    const y = x.device.empty(shape, dtype ?? x.dtype);
    const yDot = x.device.empty(shape, y.dtype);
    x.device.lib.linearJvp({
      x: x.ptr, w: w.ptr, b: ptrOf(b), xDot: xDot.ptr, y: y.ptr, yDot: yDot.ptr, yDtype: y.code, ...sizes,
    });
    return { y, yDot, saved: [] };
  },
  vjp(bar, yBar, inputs) {
    const [x, w, b] = inputs;
    const { sizes } = linearSizes("linear", inputs);
    const xBar = bar.need(0) ? x.device.empty(x.shape, x.dtype) : null;
    const wBar = bar.need(1) ? bar.accumulate(1) : null;
    const bBar = b && bar.need(2) ? bar.accumulate(2) : null;
    x.device.lib.linearVjp({
      x: x.ptr, w: w.ptr, yBar: yBar.ptr, xBar: ptrOf(xBar), wBar: ptrOf(wBar), bBar: ptrOf(bBar),
      yDtype: yBar.code, ...sizes,
    });
    if (xBar) bar.put(0, xBar);
  },
};

/** y = x w^T + b. Shapes: x [..., K], w [N, K], b [N] or null -> [..., N]. Grad: x; w and b accumulate. */
export const linear = (tape: Tape, x: Var, { w, b }: Weights, dtype: DType | null = null): Var =>
  tape.run(linearOp, [x, w, b], { dtype });
