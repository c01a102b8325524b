import type { DType } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { onlyTangent, type Op } from "../op.ts";
import type { Tensor } from "../tensor.ts";
import type { Tape, Var } from "../tape.ts";

/** Memory order of a patch's elements: channel first (c pt py px) or channel last (pt py px c). */
export type PatchOrder = "channel_first" | "channel_last";

export interface PatchParams {
  /** Frames, rows, columns of a patch. */
  patch: readonly [number, number, number];
  order: PatchOrder;
  dtype: DType | null;
}

/**
 * Sizes of a latent [B, C, T, Y, X] in patches, and the shape of its tokens.
 * Throws: E_SHAPE unless patches divide it.
 */
export function patchSizes(op: string, shape: readonly number[], { patch, order }: PatchParams) {
  const [B, C, T, Y, X] = shape;
  const [pt, py, px] = patch;
  if (shape.length !== 5 || T % pt !== 0 || Y % py !== 0 || X % px !== 0) {
    throw new RcmError("E_SHAPE", "want [B, C, T, Y, X] in whole patches", { op, want: patch, got: shape });
  }
  const L = (T / pt) * (Y / py) * (X / px);
  const sizes = { B, C, T, Y, X, pt, py, px, order: order === "channel_first" ? 0 : 1 };
  return { sizes, tokens: [B, L, C * pt * py * px] };
}

export const patchifyOp: Op<[x: Tensor], PatchParams> = {
  name: "patchify",
  forward([x], p) {
    const { sizes, tokens } = patchSizes("patchify", x.shape, p);
    const y = x.device.empty(tokens, p.dtype ?? x.dtype);
    x.device.lib.patchifyFwd({ x: x.ptr, y: y.ptr, xDtype: x.code, yDtype: y.code, ...sizes });
    return { y, saved: [] };
  },
  jvp([x], dots, p) {
    const xDot = onlyTangent("patchify", dots);
    const { sizes, tokens } = patchSizes("patchify", x.shape, p);
    const y = x.device.empty(tokens, p.dtype ?? x.dtype);
    const yDot = x.device.empty(tokens, y.dtype);
    x.device.lib.patchifyJvp({
      x: x.ptr, xDot: xDot.ptr, y: y.ptr, yDot: yDot.ptr, xDtype: x.code, yDtype: y.code, ...sizes,
    });
    return { y, yDot, saved: [] };
  },
  vjp(bar, yBar, [x], _y, _saved, p) {
    const { sizes } = patchSizes("patchify", x.shape, p);
    const xBar = x.device.empty(x.shape, x.dtype);
    x.device.lib.patchifyVjp({ yBar: yBar.ptr, xBar: xBar.ptr, xDtype: x.code, yDtype: yBar.code, ...sizes });
    bar.put(0, xBar);
  },
};

/** Flattens a latent into patches, tokens in (t y x) order. Shapes: x [B, C, T, Y, X] -> [B, L, P]. */
export const patchify = (tape: Tape, x: Var, p: PatchParams): Var => tape.run(patchifyOp, [x], p);
