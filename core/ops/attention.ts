import { RcmError } from "../error.ts";
import type { Op } from "../op.ts";
import { expectDType, expectShape, ptrOf, statDType, type Tensor } from "../tensor.ts";
import type { Tape, Var } from "../tape.ts";

interface AttentionParams {
  heads: number;
  /** Scale of the scores; null: 1/sqrt(K). */
  scale: number | null;
}

type AttentionInputs = [q: Tensor, k: Tensor, v: Tensor];

function sizes([q, k, v]: AttentionInputs, p: AttentionParams) {
  const op = "attention";
  expectShape(op, "q", q, [-1, -1, -1]);
  const [B, Lq, D] = q.shape;
  const [Lk, Dv, H] = [k.shape[1], v.shape[2], p.heads];
  expectShape(op, "k", k, [B, -1, D]);
  expectShape(op, "v", v, [B, Lk, -1]);
  expectDType(op, "k", k, q.dtype);
  expectDType(op, "v", v, q.dtype);
  if (D % H !== 0 || Dv % H !== 0) {
    throw new RcmError("E_SHAPE", "heads divide the width", { op, want: H, got: [D, Dv] });
  }
  const K = D / H;
  return { B, H, Lq, Lk, K, Kv: Dv / H, scale: p.scale ?? 1 / Math.sqrt(K), dtype: q.code };
}

export const attentionOp: Op<AttentionInputs, AttentionParams, readonly [lse: Tensor]> = {
  name: "attention",
  costly: "attention",
  forward(inputs, p) {
    const [q, k, v] = inputs;
    const s = sizes(inputs, p);
    const y = q.device.empty([s.B, s.Lq, s.H * s.Kv], q.dtype);
    const lse = q.device.empty([s.B, s.H, s.Lq], statDType(q.dtype));
    q.device.lib.attentionFwd({ q: q.ptr, k: k.ptr, v: v.ptr, o: y.ptr, lse: lse.ptr, ...s });
    return { y, saved: [lse] };
  },
  jvp(inputs, [qDot, kDot, vDot], p) {
    const [q, k, v] = inputs;
    const s = sizes(inputs, p);
    const y = q.device.empty([s.B, s.Lq, s.H * s.Kv], q.dtype);
    const yDot = q.device.empty(y.shape, q.dtype);
    const lse = q.device.empty([s.B, s.H, s.Lq], statDType(q.dtype));
    q.device.lib.attentionJvp({
      q: q.ptr, k: k.ptr, v: v.ptr, qDot: ptrOf(qDot), kDot: ptrOf(kDot), vDot: ptrOf(vDot), o: y.ptr, oDot: yDot.ptr,
      lse: lse.ptr, ...s,
    });
    return { y, yDot, saved: [lse] };
  },
  vjp(bar, yBar, inputs, y, [lse], p) {
    const [q, k, v] = inputs;
    const s = sizes(inputs, p);
    const bars = inputs.map((t, i) => (bar.need(i) ? t.device.empty(t.shape, t.dtype) : null));
    const [qBar, kBar, vBar] = bars.map(ptrOf);
    q.device.lib.attentionVjp({
      q: q.ptr, k: k.ptr, v: v.ptr, o: y.ptr, lse: lse.ptr, oBar: yBar.ptr, qBar, kBar, vBar, ...s,
    });
    bars.forEach((t, i) => t && bar.put(i, t));
  },
};

/**
 * Multi-head attention, softmax(scale q k^T) v, without mask; the tangent comes from the same pass.
 * Shapes: q [B, Lq, H*K], k [B, Lk, H*K], v [B, Lk, H*Kv] -> [B, Lq, H*Kv]. Grad: q, k, v.
 * Source: FlashAttention-2 and its Jacobian-vector product, rCM (arXiv 2510.08431) section 3.
 */
export const attention = (
  tape: Tape, { q, k, v }: Record<"q" | "k" | "v", Var>, heads: number, scale: number | null = null,
): Var => tape.run(attentionOp, [q, k, v], { heads, scale });
