import type { Pointer } from "../../ffi/call.ts";
import type { DType } from "../dtype.ts";
import type { Op } from "../op.ts";
import { expectDType, expectShape, ptrOf, statDType, type Tensor } from "../tensor.ts";
import type { Tape, Var } from "../tape.ts";

interface AdaLayerNormParams {
  /** Slots of the modulation tensor [B, S, D] that hold shift and scale. */
  shift: number;
  scale: number;
  eps: number;
  dtype: DType | null;
}

type AdaLayerNormInputs = [x: Tensor, modulation: Tensor];

function sizes([x, modulation]: AdaLayerNormInputs) {
  const op = "ada_layer_norm";
  expectShape(op, "x", x, [-1, -1, -1]);
  const [B, L, D] = x.shape;
  expectShape(op, "modulation", modulation, [B, -1, D]);
  expectDType(op, "modulation", modulation, statDType(x.dtype));
  return { B, L, D, modStride: modulation.shape[1] * D };
}

/** Address of a modulation slot; the kernels add the sample's stride. */
const slot = (modulation: Tensor, i: number): Pointer => {
  const D = modulation.shape[2];
  return modulation.window(i * D, [D]).ptr;
};

export const adaLayerNormOp: Op<AdaLayerNormInputs, AdaLayerNormParams, readonly [mean: Tensor, rstd: Tensor]> = {
  name: "ada_layer_norm",
  forward(inputs, p) {
    const [x, modulation] = inputs;
    const { B, L, D, modStride } = sizes(inputs);
    const y = x.device.empty(x.shape, p.dtype ?? x.dtype);
    const mean = x.device.empty([B * L], modulation.dtype);
    const rstd = x.device.empty([B * L], modulation.dtype);
    x.device.lib.adaLayerNormFwd({
      x: x.ptr, shift: slot(modulation, p.shift), scale: slot(modulation, p.scale), y: y.ptr, mean: mean.ptr,
      rstd: rstd.ptr, B, L, D, modStride, eps: p.eps, xDtype: x.code, yDtype: y.code,
    });
    return { y, saved: [mean, rstd] };
  },
  jvp(inputs, [xDot, modDot], p) {
    const [x, modulation] = inputs;
    const { B, L, D, modStride } = sizes(inputs);
    const y = x.device.empty(x.shape, p.dtype ?? x.dtype);
    const yDot = x.device.empty(x.shape, y.dtype);
    const mean = x.device.empty([B * L], modulation.dtype);
    const rstd = x.device.empty([B * L], modulation.dtype);
    x.device.lib.adaLayerNormJvp({
      x: x.ptr, shift: slot(modulation, p.shift), scale: slot(modulation, p.scale), xDot: ptrOf(xDot),
      shiftDot: modDot ? slot(modDot, p.shift) : 0, scaleDot: modDot ? slot(modDot, p.scale) : 0, y: y.ptr,
      yDot: yDot.ptr, mean: mean.ptr, rstd: rstd.ptr, B, L, D, modStride, eps: p.eps, xDtype: x.code, yDtype: y.code,
    });
    return { y, yDot, saved: [mean, rstd] };
  },
  vjp(bar, yBar, inputs, _y, [mean, rstd], p) {
    const [x, modulation] = inputs;
    const { B, L, D, modStride } = sizes(inputs);
    const xBar = bar.need(0) ? x.device.empty(x.shape, x.dtype) : null;
    const modBar = bar.need(1) ? bar.accumulate(1) : null;
    x.device.lib.adaLayerNormVjp({
      x: x.ptr, scale: slot(modulation, p.scale), mean: mean.ptr, rstd: rstd.ptr, yBar: yBar.ptr, xBar: ptrOf(xBar),
      shiftBar: modBar ? slot(modBar, p.shift) : 0, scaleBar: modBar ? slot(modBar, p.scale) : 0, B, L, D, modStride,
      xDtype: x.code, yDtype: yBar.code,
    });
    if (xBar) bar.put(0, xBar);
  },
};

/**
 * Layer norm without affine, then * (1 + scale) + shift from two slots of a modulation tensor (adaLN).
 * Shapes: x [B, L, D], modulation [B, S, D] (stat dtype) -> [B, L, D]. Grad: x; modulation accumulates.
 */
export const adaLayerNorm = (tape: Tape, x: Var, modulation: Var, p: AdaLayerNormParams): Var =>
  tape.run(adaLayerNormOp, [x, modulation], p);
