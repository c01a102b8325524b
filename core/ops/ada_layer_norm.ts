import type { Pointer } from "../../ffi/call.ts";
import type { DType } from "../dtype.ts";
import type { Op } from "../op.ts";
import { expectDType, expectShape, statDType, type Tensor } from "../tensor.ts";
import type { Tape, Var } from "../tape.ts";

interface AdaLayerNormParams {
  /** Slots of the modulation tensor [B, S, D] that hold shift and scale. */
  shift: number;
  scale: number;
  eps: number;
  dtype: DType | null;
}

function sizes([x, mod]: (Tensor | null)[], p: AdaLayerNormParams) {
  const [X, E] = [x as Tensor, mod as Tensor];
  const [B, L, D] = X.shape;
  const S = E.shape[1];
  expectShape("ada_layer_norm", "modulation", E, [B, S, D]);
  expectDType("ada_layer_norm", "modulation", E, statDType(X.dtype));
  return { X, E, B, L, D, stride: S * D, at: (t: Tensor, slot: number): Pointer => t.window(slot * D, [D]).ptr, shift: p.shift, scale: p.scale };
}

export const adaLayerNormOp: Op<AdaLayerNormParams> = {
  name: "ada_layer_norm",
  forward(x, p) {
    const { X, E, B, L, D, stride, at } = sizes(x, p);
    const y = X.device.empty(X.shape, p.dtype ?? X.dtype);
    const [mean, rstd] = [X.device.empty([B * L], E.dtype), X.device.empty([B * L], E.dtype)];
    X.device.lib.adaLayerNormFwd({
      x: X.ptr, shift: at(E, p.shift), scale: at(E, p.scale), y: y.ptr, mean: mean.ptr, rstd: rstd.ptr, B, L, D,
      modStride: stride, eps: p.eps, xDtype: X.code, yDtype: y.code,
    });
    return { y, own: [mean, rstd] };
  },
  jvp(x, [xDot, eDot], p) {
    const { X, E, B, L, D, stride, at } = sizes(x, p);
    const y = X.device.empty(X.shape, p.dtype ?? X.dtype);
    const yDot = X.device.empty(X.shape, y.dtype);
    const [mean, rstd] = [X.device.empty([B * L], E.dtype), X.device.empty([B * L], E.dtype)];
    X.device.lib.adaLayerNormJvp({
      x: X.ptr, shift: at(E, p.shift), scale: at(E, p.scale), xDot: xDot?.ptr ?? 0,
      shiftDot: eDot ? at(eDot, p.shift) : 0, scaleDot: eDot ? at(eDot, p.scale) : 0, y: y.ptr, yDot: yDot.ptr,
      mean: mean.ptr, rstd: rstd.ptr, B, L, D, modStride: stride, eps: p.eps, xDtype: X.code, yDtype: y.code,
    });
    return { y, yDot, own: [mean, rstd] };
  },
  vjp(bar, yBar, x, _y, [mean, rstd], p) {
    const { X, E, B, L, D, stride, at } = sizes(x, p);
    const xBar = bar.need(0) ? X.device.empty(X.shape, X.dtype) : null;
    const eBar = bar.need(1) ? bar.accumulate(1) : null;
    X.device.lib.adaLayerNormVjp({
      x: X.ptr, scale: at(E, p.scale), mean: mean.ptr, rstd: rstd.ptr, yBar: yBar.ptr, xBar: xBar?.ptr ?? 0,
      shiftBar: eBar ? at(eBar, p.shift) : 0, scaleBar: eBar ? at(eBar, p.scale) : 0, B, L, D, modStride: stride,
      xDtype: X.code, yDtype: yBar.code,
    });
    if (xBar) bar.put(0, xBar);
  },
};

/**
 * Layer norm without affine, then * (1 + scale) + shift from two slots of a modulation tensor (adaLN).
 * Shapes: x [B, L, D], modulation [B, S, D] (stat dtype) -> [B, L, D]. Grad: x; modulation accumulates.
 */
export const adaLayerNorm = (tape: Tape, x: Var, modulation: Var, p: AdaLayerNormParams): Var => tape.run(adaLayerNormOp, [x, modulation], p);
