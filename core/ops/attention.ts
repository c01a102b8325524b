import { RcmError } from "../error.ts";
import type { Op } from "../op.ts";
import { expectShape, statDType, type Tensor } from "../tensor.ts";
import type { Tape, Var } from "../tape.ts";

interface AttentionParams {
  heads: number;
  /** Factor of the scores; null: 1/sqrt(K). */
  scale: number | null;
}

function sizes([q, k, v]: (Tensor | null)[], p: AttentionParams) {
  const [Q, K_, V] = [q as Tensor, k as Tensor, v as Tensor];
  const [B, Lq, D] = Q.shape;
  const Lk = K_.shape[1];
  const H = p.heads;
  if (D % H !== 0 || V.shape[2] % H !== 0) throw new RcmError("E_SHAPE", "heads divide the width", { op: "attention", want: H, got: [D, V.shape[2]] });
  expectShape("attention", "k", K_, [B, Lk, D]);
  expectShape("attention", "v", V, [B, Lk, V.shape[2]]);
  const K = D / H;
  return { Q, K_, V, B, H, Lq, Lk, K, Kv: V.shape[2] / H, scale: p.scale ?? 1 / Math.sqrt(K) };
}

export const attentionOp: Op<AttentionParams> = {
  name: "attention",
  costly: "attention",
  forward(x, p) {
    const { Q, K_, V, B, H, Lq, Lk, K, Kv, scale } = sizes(x, p);
    const y = Q.device.empty([B, Lq, H * Kv], Q.dtype);
    const lse = Q.device.empty([B, H, Lq], statDType(Q.dtype));
    Q.device.lib.attentionFwd({
      q: Q.ptr, k: K_.ptr, v: V.ptr, o: y.ptr, lse: lse.ptr, strides: 0, B, H, Lq, Lk, K, Kv, scale, dtype: Q.code,
    });
    return { y, own: [lse] };
  },
  jvp(x, [qDot, kDot, vDot], p) {
    const { Q, K_, V, B, H, Lq, Lk, K, Kv, scale } = sizes(x, p);
    const y = Q.device.empty([B, Lq, H * Kv], Q.dtype);
    const yDot = Q.device.empty([B, Lq, H * Kv], Q.dtype);
    const lse = Q.device.empty([B, H, Lq], statDType(Q.dtype));
    Q.device.lib.attentionJvp({
      q: Q.ptr, k: K_.ptr, v: V.ptr, qDot: qDot?.ptr ?? 0, kDot: kDot?.ptr ?? 0, vDot: vDot?.ptr ?? 0, o: y.ptr,
      oDot: yDot.ptr, lse: lse.ptr, strides: 0, B, H, Lq, Lk, K, Kv, scale, dtype: Q.code,
    });
    return { y, yDot, own: [lse] };
  },
  vjp(bar, yBar, x, y, [lse], p) {
    const { Q, K_, V, B, H, Lq, Lk, K, Kv, scale } = sizes(x, p);
    const bars = [Q, K_, V].map((t, i) => (bar.need(i) ? Q.device.empty(t.shape, t.dtype) : null));
    Q.device.lib.attentionVjp({
      q: Q.ptr, k: K_.ptr, v: V.ptr, o: y.ptr, lse: lse.ptr, oBar: yBar.ptr, qBar: bars[0]?.ptr ?? 0,
      kBar: bars[1]?.ptr ?? 0, vBar: bars[2]?.ptr ?? 0, strides: 0, B, H, Lq, Lk, K, Kv, scale, dtype: Q.code,
    });
    bars.forEach((t, i) => t && bar.put(i, t));
  },
};

/**
 * Multi-head attention, softmax(scale q k^T) v, without mask; the tangent comes from the same pass.
 * Shapes: q [B, Lq, H*K], k [B, Lk, H*K], v [B, Lk, H*Kv] -> [B, Lq, H*Kv]. Grad: q, k, v.
 * Source: FlashAttention-2 and its Jacobian-vector product, rCM (arXiv 2510.08431) section 3.
 */
export const attention = (tape: Tape, q: Var, k: Var, v: Var, heads: number, scale: number | null = null): Var =>
  tape.run(attentionOp, [q, k, v], { heads, scale });
