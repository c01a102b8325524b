import type { DType } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { onlyTangent, type Op } from "../op.ts";
import { expectDType, expectShape, ptrOf, statDType, type Tensor } from "../tensor.ts";
import type { Tape, Var } from "../tape.ts";

/**
 * Rotary embedding tables: cos and sin of the angle of each (token, pair), in the stat dtype.
 * Shapes: [L, K/2] each.
 */
export interface RopeTables {
  cos: Tensor;
  sin: Tensor;
}

interface RmsNormRopeParams {
  heads: number;
  /** Elements normalised together: the whole width D (Wan) or one head (Cosmos). */
  group: number;
  rope: RopeTables | null;
  /** Pairing: (2i, 2i+1) or (i, i + K/2). */
  pairing: "interleaved" | "halves";
  eps: number;
  dtype: DType | null;
}

type RmsNormRopeInputs = [x: Tensor, w: Tensor];

function sizesOf([x, w]: RmsNormRopeInputs, { heads, group, rope, pairing }: RmsNormRopeParams) {
  const op = "rms_norm_rope";
  expectShape(op, "x", x, [-1, -1, -1]);
  const [B, L, D] = x.shape;
  if (D % heads !== 0 || D % group !== 0) {
    throw new RcmError("E_SHAPE", "heads and group divide the width", { op, want: D, got: [heads, group] });
  }
  const K = D / heads;
  expectShape(op, "w", w, [group]);
  for (const name of ["cos", "sin"] as const) {
    if (!rope) break;
    expectShape(op, name, rope[name], [L, K / 2]);
    expectDType(op, name, rope[name], statDType(x.dtype));
  }
  const mode = rope === null ? 0 : pairing === "interleaved" ? 1 : 2;
  return {
    cos: ptrOf(rope?.cos), sin: ptrOf(rope?.sin), B, L, D, K, group, rope: mode, xDtype: x.code, wDtype: w.code,
  };
}

/** Shape of rstd: one element per normalised group. */
const groups = (x: Tensor, { group }: RmsNormRopeParams): number[] => [x.numel / group];

export const rmsNormRopeOp: Op<RmsNormRopeInputs, RmsNormRopeParams, readonly [rstd: Tensor]> = {
  name: "rms_norm_rope",
  forward(inputs, p) {
    const [x, w] = inputs;
    const sizes = sizesOf(inputs, p);
    const y = x.device.empty(x.shape, p.dtype ?? x.dtype);
    const rstd = x.device.empty(groups(x, p), statDType(x.dtype));
    x.device.lib.rmsNormRopeFwd({
      x: x.ptr, w: w.ptr, y: y.ptr, rstd: rstd.ptr, eps: p.eps, yDtype: y.code, ...sizes,
    });
    return { y, saved: [rstd] };
  },
  jvp(inputs, dots, p) {
    const [x, w] = inputs;
    const xDot = onlyTangent("rms_norm_rope", dots);
    const sizes = sizesOf(inputs, p);
    const y = x.device.empty(x.shape, p.dtype ?? x.dtype);
    const yDot = x.device.empty(x.shape, y.dtype);
    const rstd = x.device.empty(groups(x, p), statDType(x.dtype));
    x.device.lib.rmsNormRopeJvp({
      x: x.ptr, w: w.ptr, xDot: xDot.ptr, y: y.ptr, yDot: yDot.ptr, rstd: rstd.ptr, eps: p.eps, yDtype: y.code,
      ...sizes,
    });
    return { y, yDot, saved: [rstd] };
  },
  vjp(bar, yBar, inputs, _y, [rstd], p) {
    const [x, w] = inputs;
    const sizes = sizesOf(inputs, p);
    const xBar = bar.need(0) ? x.device.empty(x.shape, x.dtype) : null;
    const wBar = bar.need(1) ? bar.accumulate(1) : null;
    x.device.lib.rmsNormRopeVjp({
      x: x.ptr, w: w.ptr, rstd: rstd.ptr, yBar: yBar.ptr, xBar: ptrOf(xBar), wBar: ptrOf(wBar), yDtype: yBar.code,
      ...sizes,
    });
    if (xBar) bar.put(0, xBar);
  },
};

/**
 * RMS norm with weight, then rotary embedding of every head (rope null: norm only).
 * Shapes: x [B, L, H*K], w [group] -> [B, L, H*K]. Grad: x; w accumulates.
 */
export const rmsNormRope = (tape: Tape, x: Var, w: Var, p: RmsNormRopeParams): Var =>
  tape.run(rmsNormRopeOp, [x, w], p);
