import { onlyTangent, type Op } from "../op.ts";
import { expectShape, type Tensor } from "../tensor.ts";
import type { Tape, Var } from "../tape.ts";
import { patchSizes, type PatchParams } from "./patchify.ts";

interface UnpatchifyParams extends PatchParams {
  /** [B, C, T, Y, X] of the output. */
  shape: readonly number[];
}

function sizesOf(x: Tensor, p: UnpatchifyParams) {
  const { sizes, tokens } = patchSizes("unpatchify", p.shape, p);
  expectShape("unpatchify", "x", x, tokens);
  return sizes;
}

export const unpatchifyOp: Op<[x: Tensor], UnpatchifyParams> = {
  name: "unpatchify",
  forward([x], p) {
    const sizes = sizesOf(x, p);
    const y = x.device.empty(p.shape, p.dtype ?? x.dtype);
    x.device.lib.unpatchifyFwd({ x: x.ptr, y: y.ptr, xDtype: x.code, yDtype: y.code, ...sizes });
    return { y, saved: [] };
  },
  jvp([x], dots, p) {
    const xDot = onlyTangent("unpatchify", dots);
    const sizes = sizesOf(x, p);
    const y = x.device.empty(p.shape, p.dtype ?? x.dtype);
    const yDot = x.device.empty(p.shape, y.dtype);
    x.device.lib.unpatchifyJvp({
      x: x.ptr, xDot: xDot.ptr, y: y.ptr, yDot: yDot.ptr, xDtype: x.code, yDtype: y.code, ...sizes,
    });
    return { y, yDot, saved: [] };
  },
  vjp(bar, yBar, [x], _y, _saved, p) {
    const sizes = sizesOf(x, p);
    const xBar = x.device.empty(x.shape, x.dtype);
    x.device.lib.unpatchifyVjp({ yBar: yBar.ptr, xBar: xBar.ptr, xDtype: x.code, yDtype: yBar.code, ...sizes });
    bar.put(0, xBar);
  },
};

/** The inverse of patchify. Shapes: x [B, L, P] -> [B, C, T, Y, X]. */
export const unpatchify = (tape: Tape, x: Var, p: UnpatchifyParams): Var => tape.run(unpatchifyOp, [x], p);
