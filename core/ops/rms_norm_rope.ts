import type { DType } from "../dtype.ts";
import { RcmError } from "../error.ts";
import type { Op } from "../op.ts";
import { expectDType, expectShape, ptrOf, statDType, type Tensor } from "../tensor.ts";
import type { Tape, Var } from "../tape.ts";

/** Rotary tables: cos and sin of the angle of each (token, pair); stat dtype. Shapes: [L, K/2] each. */
export interface RopeTables {
  cos: Tensor;
  sin: Tensor;
}

interface RmsNormRopeParams {
  heads: number;
  /** Elements that share one RMS: the whole width D (Wan) or one head (Cosmos). */
  group: number;
  rope: RopeTables | null;
  /** Pairing: (2i, 2i+1) or (i, i + K/2). */
  pairing: "interleaved" | "halves";
  eps: number;
  dtype: DType | null;
}

function sizes([x, w]: (Tensor | null)[], p: RmsNormRopeParams) {
  const [X, W] = [x as Tensor, w as Tensor];
  const [B, L, D] = X.shape;
  if (D % p.heads !== 0 || D % p.group !== 0) throw new RcmError("E_SHAPE", "heads and group divide the width", { op: "rms_norm_rope", want: D, got: [p.heads, p.group] });
  const K = D / p.heads;
  expectShape("rms_norm_rope", "w", W, [p.group]);
  if (p.rope) {
    for (const [name, t] of Object.entries(p.rope)) {
      expectShape("rms_norm_rope", name, t, [L, K / 2]);
      expectDType("rms_norm_rope", name, t, statDType(X.dtype));
    }
  }
  const mode = p.rope === null ? 0 : p.pairing === "interleaved" ? 1 : 2;
  return { X, W, B, L, D, K, mode, rows: (B * L * D) / p.group, cos: ptrOf(p.rope?.cos), sin: ptrOf(p.rope?.sin) };
}

export const rmsNormRopeOp: Op<RmsNormRopeParams> = {
  name: "rms_norm_rope",
  forward(x, p) {
    const { X, W, B, L, D, K, mode, rows, cos, sin } = sizes(x, p);
    const y = X.device.empty(X.shape, p.dtype ?? X.dtype);
    const rstd = X.device.empty([rows], statDType(X.dtype));
    X.device.lib.rmsNormRopeFwd({
      x: X.ptr, w: W.ptr, cos, sin, y: y.ptr, rstd: rstd.ptr, B, L, D, K, group: p.group, rope: mode, eps: p.eps,
      xDtype: X.code, wDtype: W.code, yDtype: y.code,
    });
    return { y, own: [rstd] };
  },
  jvp(x, [xDot], p) {
    const { X, W, B, L, D, K, mode, rows, cos, sin } = sizes(x, p);
    const y = X.device.empty(X.shape, p.dtype ?? X.dtype);
    const yDot = X.device.empty(X.shape, y.dtype);
    const rstd = X.device.empty([rows], statDType(X.dtype));
    X.device.lib.rmsNormRopeJvp({
      x: X.ptr, w: W.ptr, cos, sin, xDot: (xDot as Tensor).ptr, y: y.ptr, yDot: yDot.ptr, rstd: rstd.ptr, B, L, D, K,
      group: p.group, rope: mode, eps: p.eps, xDtype: X.code, wDtype: W.code, yDtype: y.code,
    });
    return { y, yDot, own: [rstd] };
  },
  vjp(bar, yBar, x, _y, [rstd], p) {
    const { X, W, B, L, D, K, mode, cos, sin } = sizes(x, p);
    const xBar = bar.need(0) ? X.device.empty(X.shape, X.dtype) : null;
    const wBar = bar.need(1) ? bar.accumulate(1) : null;
    X.device.lib.rmsNormRopeVjp({
      x: X.ptr, w: W.ptr, cos, sin, rstd: rstd.ptr, yBar: yBar.ptr, xBar: xBar?.ptr ?? 0, wBar: wBar?.ptr ?? 0, B, L, D,
      K, group: p.group, rope: mode, xDtype: X.code, wDtype: W.code, yDtype: yBar.code,
    });
    if (xBar) bar.put(0, xBar);
  },
};

/**
 * RMS norm with weight, then rotary embedding of every head (rope null: norm only).
 * Shapes: x [B, L, H*K], w [group] -> [B, L, H*K]. Grad: x; w accumulates.
 */
export const rmsNormRope = (tape: Tape, x: Var, w: Var, p: RmsNormRopeParams): Var => tape.run(rmsNormRopeOp, [x, w], p);
