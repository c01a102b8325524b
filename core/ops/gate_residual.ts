import type { Pointer } from "../../ffi/call.ts";
import type { Op } from "../op.ts";
import { expectDType, expectShape, statDType, type Tensor } from "../tensor.ts";
import type { Tape, Var } from "../tape.ts";

interface GateResidualParams {
  /** Slot of the modulation tensor [B, S, D] that holds the gate. */
  gate: number;
}

function sizes([x, h, mod]: (Tensor | null)[], p: GateResidualParams) {
  const [X, H] = [x as Tensor, h as Tensor];
  const [B, L, D] = X.shape;
  expectShape("gate_residual", "h", H, X.shape);
  if (mod) {
    expectShape("gate_residual", "modulation", mod, [B, -1, D]);
    expectDType("gate_residual", "modulation", mod, statDType(X.dtype));
  }
  const at = (t: Tensor | null): Pointer | 0 => (t ? t.window(p.gate * D, [D]).ptr : 0);
  return { X, H, B, L, D, stride: mod ? mod.shape[1] * D : 0, at };
}

export const gateResidualOp: Op<GateResidualParams> = {
  name: "gate_residual",
  forward(x, p) {
    const { X, H, B, L, D, stride, at } = sizes(x, p);
    const y = X.device.empty(X.shape, X.dtype);
    X.device.lib.gateResidualFwd({
      x: X.ptr, h: H.ptr, gate: at(x[2]), y: y.ptr, B, L, D, gateStride: stride, xDtype: X.code, hDtype: H.code,
    });
    return { y, own: [] };
  },
  jvp(x, [xDot, hDot, modDot], p) {
    const { X, H, B, L, D, stride, at } = sizes(x, p);
    const y = X.device.empty(X.shape, X.dtype);
    const yDot = X.device.empty(X.shape, X.dtype);
    X.device.lib.gateResidualJvp({
      x: X.ptr, h: H.ptr, gate: at(x[2]), xDot: xDot?.ptr ?? 0, hDot: hDot?.ptr ?? 0, gateDot: at(modDot ?? null),
      y: y.ptr, yDot: yDot.ptr, B, L, D, gateStride: stride, xDtype: X.code, hDtype: H.code,
    });
    return { y, yDot, own: [] };
  },
  vjp(bar, yBar, x, _y, _own, p) {
    const { X, H, B, L, D, stride, at } = sizes(x, p);
    const hBar = bar.need(1) ? X.device.empty(H.shape, H.dtype) : null;
    const modBar = x[2] && bar.need(2) ? bar.accumulate(2) : null;
    X.device.lib.gateResidualVjp({
      h: H.ptr, gate: at(x[2]), yBar: yBar.ptr, hBar: hBar?.ptr ?? 0, gateBar: at(modBar), B, L, D, gateStride: stride,
      xDtype: X.code, hDtype: H.code,
    });
    if (bar.need(0)) bar.put(0, yBar);
    if (hBar) bar.put(1, hBar);
  },
};

/**
 * y = x + gate * h with the gate in a slot of a modulation tensor; modulation null: y = x + h.
 * Shapes: x, h [B, L, D], modulation [B, S, D] (stat dtype). Grad: x, h; modulation accumulates.
 */
export const gateResidual = (tape: Tape, x: Var, h: Var, modulation: Var | null = null, gate = 0): Var =>
  tape.run(gateResidualOp, [x, h, modulation], { gate });
