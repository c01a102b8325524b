import type { DType } from "../../dtype.ts";
import { RcmError } from "../../error.ts";
import { expectDType, expectShape, statDType, type Tensor } from "../../tensor.ts";

/** Inference-only ops of a text encoder, on plain tensors. */

/** Rows of a table by id. Shapes: table [V, D], ids i32 [...] -> [..., D]. */
export function embedding(table: Tensor, ids: Tensor, dtype: DType): Tensor {
  expectDType("embedding", "ids", ids, "i32");
  const [V, D] = table.shape;
  const y = table.device.empty([...ids.shape, D], dtype);
  table.device.lib.embedding({
    table: table.ptr, ids: ids.ptr, y: y.ptr, n: ids.numel, V, D, tableDtype: table.code, yDtype: y.code,
  });
  return y;
}

/** One column of a table per head. Shapes: table [V, H], bucket i32 [N] -> [H, N]. */
export function relativeBias(table: Tensor, bucket: Tensor, dtype: DType): Tensor {
  expectDType("relative_bias", "bucket", bucket, "i32");
  const [V, H] = table.shape;
  const y = table.device.empty([H, bucket.numel], dtype);
  table.device.lib.relativeBias({
    table: table.ptr, bucket: bucket.ptr, bias: y.ptr, n: bucket.numel, V, H, tableDtype: table.code, biasDtype: y.code,
  });
  return y;
}

/** x GELU(gate), tanh form. Shapes: any, equal. */
export function geluGate(x: Tensor, gate: Tensor, dtype: DType): Tensor {
  expectShape("gelu_gate", "gate", gate, x.shape);
  expectDType("gelu_gate", "gate", gate, x.dtype);
  const y = x.device.empty(x.shape, dtype);
  x.device.lib.geluGate({ x: x.ptr, gate: gate.ptr, y: y.ptr, n: x.numel, dtype: x.code, yDtype: y.code });
  return y;
}

/**
 * softmax(scale q k^T + bias) v over the first lengths[b] keys of each sample (null: all); a sample without keys gives
 * zeros.
 * Shapes: q, k, v [B, L, H*K], bias stat [H, 2L-1] by key - query + L - 1, lengths i32 [B] -> [B, L, H*K].
 */
export function biasAttention(
  { q, k, v }: Record<"q" | "k" | "v", Tensor>,
  bias: Tensor,
  lengths: Tensor | null,
  scale: number,
): Tensor {
  const op = "bias_attention";
  const [B, L, D] = q.shape;
  const H = bias.shape[0];
  if (D % H !== 0) throw new RcmError("E_SHAPE", "heads divide the width", { op, want: H, got: D });
  for (const [name, t] of [["k", k], ["v", v]] as const) {
    expectShape(op, name, t, q.shape);
    expectDType(op, name, t, q.dtype);
  }
  expectShape(op, "bias", bias, [H, 2 * L - 1]);
  expectDType(op, "bias", bias, statDType(q.dtype));
  if (lengths) {
    expectShape(op, "lengths", lengths, [B]);
    expectDType(op, "lengths", lengths, "i32");
  }
  const y = q.device.empty(q.shape, q.dtype);
  q.device.lib.biasAttention({
    q: q.ptr, k: k.ptr, v: v.ptr, bias: bias.ptr, lengths: lengths?.ptr ?? 0, o: y.ptr, B, H, L, K: D / H, scale,
    dtype: q.code,
  });
  return y;
}
