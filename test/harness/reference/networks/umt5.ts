import type { DType, HostTensor } from "../../../../core/dtype.ts";
import { relativeBucket, type Umt5Config } from "../../../../core/models/umt5/config.ts";
import { add } from "../add.ts";
import { biasAttention } from "../bias_attention.ts";
import { geluGate } from "../gelu_gate.ts";
import { linear } from "../linear.ts";
import { plain, plainOf, storedAs, type Plain } from "../plain.ts";
import { rmsNormRope } from "../rms_norm_rope.ts";

export interface Umt5Run {
  config: Umt5Config;
  weights: ReadonlyMap<string, HostTensor>;
  /** Shapes: [B, L]. */
  ids: Plain;
  /** Keys that count, per sample; null: all. */
  lengths: readonly number[] | null;
  /** Storage of weights and of what is computed inside a layer, and of the residual stream; the sums are f64. */
  dtype: DType;
  residual: DType;
}

/** The umT5 encoder in f64, rounded wherever a tensor is stored. Shapes: -> [B, L, D]. */
export function umt5({ config: c, weights, ids, lengths, dtype, residual }: Umt5Run): Plain {
  const L = ids.shape[1];
  const stored = (t: Plain): Plain => storedAs(dtype, t);
  const weight = (name: string): Plain => stored(plainOf(weights.get(`${name}.weight`) as HostTensor));
  const norm = (x: Plain, name: string): Plain =>
    stored(rmsNormRope(x, weight(name), { heads: 1, group: c.dim, rope: null, eps: c.eps }));
  const project = (x: Plain, name: string): Plain => stored(linear(x, weight(name), null));
  const plus = (x: Plain, change: Plain): Plain => storedAs(residual, add(x, change));

  const table = weight("token_embedding");
  let x = plain([...ids.shape, c.dim], Float64Array.from({ length: ids.v.length * c.dim }, (_, i) =>
    table.v[ids.v[Math.floor(i / c.dim)] * c.dim + (i % c.dim)]));
  for (let i = 0; i < c.layers; i++) {
    const block = `blocks.${i}`;
    const buckets = weight(`${block}.pos_embedding.embedding`);
    const bias = plain([c.heads, 2 * L - 1], Float64Array.from({ length: c.heads * (2 * L - 1) }, (_, n) => {
      const [head, distance] = [Math.floor(n / (2 * L - 1)), (n % (2 * L - 1)) - (L - 1)];
      return buckets.v[relativeBucket(distance, c) * c.heads + head];
    }));
    const n = norm(x, `${block}.norm1`);
    const qkv = ["q", "k", "v"].map((part) => project(n, `${block}.attn.${part}`));
    const attended = stored(biasAttention(qkv, bias, { heads: c.heads, scale: 1, lengths }));
    x = plus(x, linear(attended, weight(`${block}.attn.o`), null));
    const m = norm(x, `${block}.norm2`);
    const hidden = stored(geluGate(project(m, `${block}.ffn.fc1`), project(m, `${block}.ffn.gate.0`)));
    x = plus(x, linear(hidden, weight(`${block}.ffn.fc2`), null));
  }
  return norm(x, "norm");
}
