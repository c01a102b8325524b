import type { Pointer } from "../../ffi/call.ts";
import type { Op } from "../op.ts";
import { expectDType, expectShape, ptrOf, statDType, type Tensor } from "../tensor.ts";
import type { Tape, Var } from "../tape.ts";

interface GateResidualParams {
  /** Slot of the modulation tensor [B, S, D] that holds the gate. */
  gate: number;
}

type GateResidualInputs = [x: Tensor, h: Tensor, modulation: Tensor | null];

function sizes([x, h, modulation]: GateResidualInputs) {
  const op = "gate_residual";
  expectShape(op, "x", x, [-1, -1, -1]);
  const [B, L, D] = x.shape;
  expectShape(op, "h", h, x.shape);
  if (modulation) {
    expectShape(op, "modulation", modulation, [B, -1, D]);
    expectDType(op, "modulation", modulation, statDType(x.dtype));
  }
  return { B, L, D, gateStride: modulation ? modulation.shape[1] * D : 0, xDtype: x.code, hDtype: h.code };
}

/** Address of the gate's slot; 0 for no gate. */
function gateOf(modulation: Tensor | null, { gate }: GateResidualParams): Pointer | 0 {
  if (!modulation) return 0;
  const D = modulation.shape[2];
  return modulation.window(gate * D, [D]).ptr;
}

export const gateResidualOp: Op<GateResidualInputs, GateResidualParams> = {
  name: "gate_residual",
  forward(inputs, p) {
    const [x, h, modulation] = inputs;
    const s = sizes(inputs);
    const y = x.device.empty(x.shape, x.dtype);
    x.device.lib.gateResidualFwd({ x: x.ptr, h: h.ptr, gate: gateOf(modulation, p), y: y.ptr, ...s });
    return { y, saved: [] };
  },
  jvp(inputs, [xDot, hDot, modDot], p) {
    const [x, h, modulation] = inputs;
    const s = sizes(inputs);
    const y = x.device.empty(x.shape, x.dtype);
    const yDot = x.device.empty(x.shape, x.dtype);
    x.device.lib.gateResidualJvp({
      x: x.ptr, h: h.ptr, gate: gateOf(modulation, p), xDot: ptrOf(xDot), hDot: ptrOf(hDot),
      gateDot: gateOf(modDot, p), y: y.ptr, yDot: yDot.ptr, ...s,
    });
    return { y, yDot, saved: [] };
  },
  vjp(bar, yBar, inputs, _y, _saved, p) {
    const [, h, modulation] = inputs;
    const s = sizes(inputs);
    const hBar = bar.need(1) ? h.device.empty(h.shape, h.dtype) : null;
    const modBar = modulation && bar.need(2) ? bar.accumulate(2) : null;
    h.device.lib.gateResidualVjp({
      h: h.ptr, gate: gateOf(modulation, p), yBar: yBar.ptr, hBar: ptrOf(hBar), gateBar: gateOf(modBar, p), ...s,
    });
    if (bar.need(0)) bar.put(0, yBar);
    if (hBar) bar.put(1, hBar);
  },
};

/**
 * y = x + gate * h with the gate in a slot of a modulation tensor; without gate: y = x + h.
 * Shapes: x, h [B, L, D], modulation [B, S, D] (stat dtype). Grad: x, h; modulation accumulates.
 */
export const gateResidual = (
  tape: Tape, x: Var, h: Var, gate: { modulation: Var; slot: number } | null = null,
): Var => tape.run(gateResidualOp, [x, h, gate?.modulation ?? null], { gate: gate?.slot ?? 0 });
