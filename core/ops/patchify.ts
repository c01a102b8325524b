import type { DType } from "../dtype.ts";
import { RcmError } from "../error.ts";
import type { Op } from "../op.ts";
import type { Tensor } from "../tensor.ts";
import type { Tape, Var } from "../tape.ts";

/** Order of a patch's elements: channel first (c pt py px) or channel last (pt py px c). */
export type PatchOrder = "channel_first" | "channel_last";

export interface PatchParams {
  /** Frames, rows, columns of a patch. */
  patch: readonly [number, number, number];
  order: PatchOrder;
  dtype: DType | null;
}

/** Sizes of a latent [B, C, T, Y, X] cut into patches. Throws: E_SHAPE when a patch does not divide it. */
export function patchSizes(op: string, shape: readonly number[], { patch, order }: PatchParams) {
  const [B, C, T, Y, X] = shape;
  const [pt, py, px] = patch;
  if (shape.length !== 5 || T % pt !== 0 || Y % py !== 0 || X % px !== 0) {
    throw new RcmError("E_SHAPE", "want [B, C, T, Y, X] in whole patches", { op, want: patch, got: shape });
  }
  const L = (T / pt) * (Y / py) * (X / px);
  return { B, C, T, Y, X, pt, py, px, tokens: [B, L, C * pt * py * px], order: order === "channel_first" ? 0 : 1 };
}

export const patchifyOp: Op<PatchParams> = {
  name: "patchify",
  forward([x], p) {
    const x_ = x as Tensor;
    const s = patchSizes("patchify", x_.shape, p);
    const y = x_.device.empty(s.tokens, p.dtype ?? x_.dtype);
    x_.device.lib.patchifyFwd({
      x: x_.ptr, y: y.ptr, B: s.B, C: s.C, T: s.T, Y: s.Y, X: s.X, pt: s.pt, py: s.py, px: s.px, order: s.order,
      xDtype: x_.code, yDtype: y.code,
    });
    return { y, own: [] };
  },
  jvp([x], [xDot], p) {
    const x_ = x as Tensor;
    const s = patchSizes("patchify", x_.shape, p);
    const y = x_.device.empty(s.tokens, p.dtype ?? x_.dtype);
    const yDot = x_.device.empty(s.tokens, y.dtype);
    x_.device.lib.patchifyJvp({
      x: x_.ptr, xDot: (xDot as Tensor).ptr, y: y.ptr, yDot: yDot.ptr, B: s.B, C: s.C, T: s.T, Y: s.Y, X: s.X, pt: s.pt,
      py: s.py, px: s.px, order: s.order, xDtype: x_.code, yDtype: y.code,
    });
    return { y, yDot, own: [] };
  },
  vjp(bar, yBar, [x], _y, _own, p) {
    const x_ = x as Tensor;
    const s = patchSizes("patchify", x_.shape, p);
    const xBar = x_.device.empty(x_.shape, x_.dtype);
    x_.device.lib.patchifyVjp({
      yBar: yBar.ptr, xBar: xBar.ptr, B: s.B, C: s.C, T: s.T, Y: s.Y, X: s.X, pt: s.pt, py: s.py, px: s.px,
      order: s.order, xDtype: x_.code, yDtype: yBar.code,
    });
    bar.put(0, xBar);
  },
};

/** Cuts a latent into flat patches, tokens in (t y x) order. Shapes: x [B, C, T, Y, X] -> [B, L, P]. */
export const patchify = (tape: Tape, x: Var, p: PatchParams): Var => tape.run(patchifyOp, [x], p);
