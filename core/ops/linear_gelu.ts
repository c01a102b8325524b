import { onlyTangent, type Op } from "../op.ts";
import { ptrOf, type Tensor } from "../tensor.ts";
import type { Tape, Var } from "../tape.ts";
import { activationCode, type ActivationKind } from "./activation.ts";
import { linearSizes, type LinearInputs, type Weights } from "./linear.ts";

interface LinearGeluParams {
  kind: ActivationKind;
}

/** Saves the pre-activation h = x w^T + b for the vjp. */
export const linearGeluOp: Op<LinearInputs, LinearGeluParams, readonly [h: Tensor]> = {
  name: "linear_gelu",
  costly: "matmul",
  forward(inputs, p, record) {
    const [x, w, b] = inputs;
    const { sizes, shape } = linearSizes("linear_gelu", inputs);
    const y = x.device.empty(shape, x.dtype);
    const h = record ? x.device.empty(shape, x.dtype) : null;
    const kind = activationCode(p.kind);
    x.device.lib.linearGeluFwd({
      x: x.ptr, w: w.ptr, b: ptrOf(b), h: ptrOf(h), y: y.ptr, kind, yDtype: y.code, ...sizes,
    });
    return { y, saved: h ? [h] : [] };
  },
  jvp(inputs, dots, p, record) {
    const [x, w, b] = inputs;
    const xDot = onlyTangent("linear_gelu", dots);
    const { sizes, shape } = linearSizes("linear_gelu", inputs);
    const y = x.device.empty(shape, x.dtype);
    const yDot = x.device.empty(shape, x.dtype);
    const h = record ? x.device.empty(shape, x.dtype) : null;
    const kind = activationCode(p.kind);
    x.device.lib.linearGeluJvp({
      x: x.ptr, w: w.ptr, b: ptrOf(b), xDot: xDot.ptr, h: ptrOf(h), y: y.ptr, yDot: yDot.ptr, kind, yDtype: y.code,
      ...sizes,
    });
    return { y, yDot, saved: h ? [h] : [] };
  },
  vjp(bar, yBar, inputs, _y, [h], p) {
    const [x, w, b] = inputs;
    const { sizes } = linearSizes("linear_gelu", inputs);
    const scratch = x.device.empty(yBar.shape, yBar.dtype);
    const xBar = bar.need(0) ? x.device.empty(x.shape, x.dtype) : null;
    const wBar = bar.need(1) ? bar.accumulate(1) : null;
    const bBar = b && bar.need(2) ? bar.accumulate(2) : null;
    x.device.lib.linearGeluVjp({
      x: x.ptr, w: w.ptr, h: h.ptr, yBar: yBar.ptr, scratch: scratch.ptr, xBar: ptrOf(xBar), wBar: ptrOf(wBar),
      bBar: ptrOf(bBar), kind: activationCode(p.kind), yDtype: yBar.code, ...sizes,
    });
    scratch.free();
    if (xBar) bar.put(0, xBar);
  },
};

/**
 * y = f(x w^T + b), f = GELU (tanh form) by default.
 * Shapes: x [..., K], w [N, K], b [N] -> [..., N]. Grad: as linear.
 */
export const linearGelu = (
  tape: Tape, x: Var, { w, b }: Weights, kind: ActivationKind = "gelu_tanh",
): Var => tape.run(linearGeluOp, [x, w, b], { kind });
