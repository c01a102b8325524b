import { onlyTangent, type Op } from "../op.ts";
import { expectShape, ptrOf, type Tensor } from "../tensor.ts";
import type { Tape, Var } from "../tape.ts";

type AddModulationInputs = [p: Tensor, e: Tensor];

function sizes([p, e]: AddModulationInputs) {
  const op = "add_modulation";
  const [S, D] = p.shape.slice(-2);
  const [B, Se] = e.shape;
  expectShape(op, "p", p, [...p.shape.slice(0, -2).fill(1), S, D]);
  expectShape(op, "e", e, [B, Se === 1 ? 1 : S, D]);
  return { B, S, Se, D };
}

export const addModulationOp: Op<AddModulationInputs, null> = {
  name: "add_modulation",
  forward(inputs) {
    const [p, e] = inputs;
    const { B, S, Se, D } = sizes(inputs);
    const y = e.device.empty([B, S, D], e.dtype);
    e.device.lib.addModulationFwd({ p: p.ptr, e: e.ptr, y: y.ptr, B, S, Se, D, pDtype: p.code, dtype: e.code });
    return { y, saved: [] };
  },
  jvp(inputs, dots) {
    const [p, e] = inputs;
    const eDot = onlyTangent("add_modulation", dots, 1);
    const { B, S, Se, D } = sizes(inputs);
    const y = e.device.empty([B, S, D], e.dtype);
    const yDot = e.device.empty([B, S, D], e.dtype);
    e.device.lib.addModulationJvp({
      p: p.ptr, e: e.ptr, eDot: eDot.ptr, y: y.ptr, yDot: yDot.ptr, B, S, Se, D, pDtype: p.code, dtype: e.code,
    });
    return { y, yDot, saved: [] };
  },
  vjp(bar, yBar, inputs) {
    const [p, e] = inputs;
    const { B, S, Se, D } = sizes(inputs);
    const pBar = bar.need(0) ? bar.accumulate(0) : null;
    const eBar = bar.need(1) ? e.device.empty(e.shape, e.dtype) : null;
    e.device.lib.addModulationVjp({
      yBar: yBar.ptr, pBar: ptrOf(pBar), eBar: ptrOf(eBar), B, S, Se, D, pDtype: p.code, dtype: e.code,
    });
    if (eBar) bar.put(1, eBar);
  },
};

/**
 * y[b,s] = p[s] + e[b,s] (or e[b,0]).
 * Shapes: p [..., S, D] parameter, e [B, S|1, D] -> [B, S, D]. Grad: e; p accumulates.
 */
export const addModulation = (tape: Tape, p: Var, e: Var): Var => tape.run(addModulationOp, [p, e], null);
