import type { Op } from "../op.ts";
import { expectShape, type Tensor } from "../tensor.ts";
import type { Tape, Var } from "../tape.ts";
import { patchSizes, type PatchParams } from "./patchify.ts";

interface UnpatchifyParams extends PatchParams {
  /** [B, C, T, Y, X] of the output. */
  shape: readonly number[];
}

function sizes(x: Tensor | null, p: UnpatchifyParams) {
  const s = patchSizes("unpatchify", p.shape, p);
  expectShape("unpatchify", "x", x as Tensor, s.tokens);
  return { X_: x as Tensor, ...s };
}

export const unpatchifyOp: Op<UnpatchifyParams> = {
  name: "unpatchify",
  forward([x], p) {
    const { X_, ...s } = sizes(x, p);
    const y = X_.device.empty(p.shape, p.dtype ?? X_.dtype);
    X_.device.lib.unpatchifyFwd({
      x: X_.ptr, y: y.ptr, B: s.B, C: s.C, T: s.T, Y: s.Y, X: s.X, pt: s.pt, py: s.py, px: s.px, order: s.order,
      xDtype: X_.code, yDtype: y.code,
    });
    return { y, own: [] };
  },
  jvp([x], [xDot], p) {
    const { X_, ...s } = sizes(x, p);
    const y = X_.device.empty(p.shape, p.dtype ?? X_.dtype);
    const yDot = X_.device.empty(p.shape, y.dtype);
    X_.device.lib.unpatchifyJvp({
      x: X_.ptr, xDot: (xDot as Tensor).ptr, y: y.ptr, yDot: yDot.ptr, B: s.B, C: s.C, T: s.T, Y: s.Y, X: s.X, pt: s.pt,
      py: s.py, px: s.px, order: s.order, xDtype: X_.code, yDtype: y.code,
    });
    return { y, yDot, own: [] };
  },
  vjp(bar, yBar, [x], _y, _own, p) {
    const { X_, ...s } = sizes(x, p);
    const xBar = X_.device.empty(X_.shape, X_.dtype);
    X_.device.lib.unpatchifyVjp({
      yBar: yBar.ptr, xBar: xBar.ptr, B: s.B, C: s.C, T: s.T, Y: s.Y, X: s.X, pt: s.pt, py: s.py, px: s.px,
      order: s.order, xDtype: X_.code, yDtype: yBar.code,
    });
    bar.put(0, xBar);
  },
};

/** The inverse of patchify. Shapes: x [B, L, P] -> [B, C, T, Y, X]. */
export const unpatchify = (tape: Tape, x: Var, p: UnpatchifyParams): Var => tape.run(unpatchifyOp, [x], p);
