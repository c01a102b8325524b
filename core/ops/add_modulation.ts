import type { Op } from "../op.ts";
import { expectShape, type Tensor } from "../tensor.ts";
import type { Tape, Var } from "../tape.ts";

function sizes([p, e]: (Tensor | null)[]) {
  const [P, E] = [p as Tensor, e as Tensor];
  const [S, D] = P.shape.slice(-2);
  const [B, Se] = E.shape;
  expectShape("add_modulation", "p", P.view([S, D]), [S, D]);
  expectShape("add_modulation", "e", E, [B, Se === 1 ? 1 : S, D]);
  return { P, E, B, S, Se, D };
}

export const addModulationOp: Op<null> = {
  name: "add_modulation",
  forward(x) {
    const { P, E, B, S, Se, D } = sizes(x);
    const y = E.device.empty([B, S, D], E.dtype);
    E.device.lib.addModulationFwd({ p: P.ptr, e: E.ptr, y: y.ptr, B, S, Se, D, pDtype: P.code, dtype: E.code });
    return { y, own: [] };
  },
  jvp(x, [, eDot]) {
    const { P, E, B, S, Se, D } = sizes(x);
    const y = E.device.empty([B, S, D], E.dtype);
    const yDot = E.device.empty([B, S, D], E.dtype);
    E.device.lib.addModulationJvp({
      p: P.ptr, e: E.ptr, eDot: (eDot as Tensor).ptr, y: y.ptr, yDot: yDot.ptr, B, S, Se, D, pDtype: P.code,
      dtype: E.code,
    });
    return { y, yDot, own: [] };
  },
  vjp(bar, yBar, x) {
    const { P, E, B, S, Se, D } = sizes(x);
    const pBar = bar.need(0) ? bar.accumulate(0) : null;
    const eBar = bar.need(1) ? E.device.empty(E.shape, E.dtype) : null;
    E.device.lib.addModulationVjp({
      yBar: yBar.ptr, pBar: pBar?.ptr ?? 0, eBar: eBar?.ptr ?? 0, B, S, Se, D, pDtype: P.code, dtype: E.code,
    });
    if (eBar) bar.put(1, eBar);
  },
};

/** y[b,s] = p[s] + e[b,s] (or e[b,0]). Shapes: p [..., S, D] parameter, e [B, S|1, D] -> [B, S, D]. Grad: e; p accumulates. */
export const addModulation = (tape: Tape, p: Var, e: Var): Var => tape.run(addModulationOp, [p, e], null);
