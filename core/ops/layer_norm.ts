import type { DType } from "../dtype.ts";
import { onlyTangent, type Op } from "../op.ts";
import { expectDType, expectShape, ptrOf, statDType, type Tensor } from "../tensor.ts";
import type { Tape, Var } from "../tape.ts";

interface LayerNormParams {
  eps: number;
  /** dtype of y; null: that of x. */
  dtype: DType | null;
}

type LayerNormInputs = [x: Tensor, w: Tensor | null, b: Tensor | null];

function sizes([x, w, b]: LayerNormInputs) {
  const op = "layer_norm";
  const N = x.shape[x.shape.length - 1];
  if (w) expectShape(op, "w", w, [N]);
  if (b) expectShape(op, "b", b, [N]);
  if (w && b) expectDType(op, "b", b, w.dtype);
  return { M: x.numel / N, N, xDtype: x.code, wDtype: (w ?? b ?? x).code };
}

export const layerNormOp: Op<LayerNormInputs, LayerNormParams, readonly [mean: Tensor, rstd: Tensor]> = {
  name: "layer_norm",
  forward(inputs, { eps, dtype }) {
    const [x, w, b] = inputs;
    const s = sizes(inputs);
    const y = x.device.empty(x.shape, dtype ?? x.dtype);
    const mean = x.device.empty([s.M], statDType(x.dtype));
    const rstd = x.device.empty([s.M], mean.dtype);
    x.device.lib.layerNormFwd({
      x: x.ptr, w: ptrOf(w), b: ptrOf(b), y: y.ptr, mean: mean.ptr, rstd: rstd.ptr, eps, yDtype: y.code, ...s,
    });
    return { y, saved: [mean, rstd] };
  },
  jvp(inputs, dots, { eps, dtype }) {
    const [x, w, b] = inputs;
    const xDot = onlyTangent("layer_norm", dots);
    const s = sizes(inputs);
    const y = x.device.empty(x.shape, dtype ?? x.dtype);
    const yDot = x.device.empty(x.shape, y.dtype);
    const mean = x.device.empty([s.M], statDType(x.dtype));
    const rstd = x.device.empty([s.M], mean.dtype);
    x.device.lib.layerNormJvp({
      x: x.ptr, w: ptrOf(w), b: ptrOf(b), xDot: xDot.ptr, y: y.ptr, yDot: yDot.ptr, mean: mean.ptr, rstd: rstd.ptr,
      eps, yDtype: y.code, ...s,
    });
    return { y, yDot, saved: [mean, rstd] };
  },
  vjp(bar, yBar, inputs, _y, [mean, rstd]) {
    const [x, w, b] = inputs;
    const s = sizes(inputs);
    const xBar = bar.need(0) ? x.device.empty(x.shape, x.dtype) : null;
    const wBar = w && bar.need(1) ? bar.accumulate(1) : null;
    const bBar = b && bar.need(2) ? bar.accumulate(2) : null;
    x.device.lib.layerNormVjp({
      x: x.ptr, w: ptrOf(w), mean: mean.ptr, rstd: rstd.ptr, yBar: yBar.ptr, xBar: ptrOf(xBar), wBar: ptrOf(wBar),
      bBar: ptrOf(bBar), yDtype: yBar.code, ...s,
    });
    if (xBar) bar.put(0, xBar);
  },
};

/**
 * Layer norm over the last axis with optional affine.
 * Shapes: x [..., N], w, b [N] or null. Grad: x; w and b accumulate.
 */
export const layerNorm = (
  tape: Tape, x: Var, { w, b, ...p }: LayerNormParams & { w: Var | null; b: Var | null },
): Var => tape.run(layerNormOp, [x, w, b], p);
