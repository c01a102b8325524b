import type { DType } from "../../dtype.ts";
import { RcmError } from "../../error.ts";
import { ParamSet } from "../../nn/params.ts";
import { biasAttention, embedding, geluGate, relativeBias } from "../../ops/nondiff/text.ts";
import { linear } from "../../ops/linear.ts";
import { rmsNormRope } from "../../ops/rms_norm_rope.ts";
import { statDType, type Device, type Tensor } from "../../tensor.ts";
import { constant, Tape } from "../../tape.ts";
import { relativeBuckets, type Umt5Config } from "./config.ts";
import { umt5Params } from "./keys.ts";

export interface Umt5Options {
  /** dtype of weights and of activations inside a layer. */
  dtype: DType;
  /**
   * dtype of the residual stream; f32 by default for bf16 and f16 weights. The public code uses the weights' dtype,
   * where bf16 rounds each of 48 additions to 8 bits and f16 overflows.
   */
  residual?: DType;
}

/**
 * The umT5 encoder, inference only.
 * Source: T5 v1.1 encoder with a relative bias per layer (UMT5, arXiv 2304.09151).
 */
export class Umt5Encoder implements Disposable {
  private constructor(
    readonly config: Umt5Config,
    readonly params: ParamSet,
    readonly dtype: DType,
    readonly residual: DType,
  ) {}

  /** Allocates zeroed weights, which live until the encoder is disposed. */
  static create(device: Device, config: Umt5Config, o: Umt5Options): Umt5Encoder {
    const residual = o.residual ?? statDType(o.dtype);
    if ((o.dtype === "f64") !== (residual === "f64")) {
      throw new RcmError("E_DTYPE", "f64 does not mix with other dtypes", { op: "umt5", want: o.dtype, got: residual });
    }
    return new Umt5Encoder(config, ParamSet.create(device, umt5Params(config), o.dtype, false), o.dtype, residual);
  }

  /**
   * Encodes token ids. Keys from lengths[b] on are masked (null: no mask); rows of masked queries are computed too.
   * Shapes: ids i32 [B, L], lengths i32 [B] -> [B, L, D] of the weights' dtype.
   */
  forward(ids: Tensor, lengths: Tensor | null): Tensor {
    const { device } = this.params;
    const { config: c, params: p, dtype, residual } = this;
    const scope = device.scope();
    try {
      const L = ids.shape[1];
      const bucket = device.fromValues(relativeBuckets(L, c), [2 * L - 1], "i32");
      const x = embedding(p.tensor("token_embedding.weight"), ids, residual);
      for (let i = 0; i < c.layers; i++) this.layer(i, x, bucket, lengths);
      return scope.keep(this.norm("norm.weight", x, dtype));
    } finally {
      scope[Symbol.dispose]();
    }
  }

  /** x += attention(norm(x)); x += ffn(norm(x)), in place. */
  private layer(i: number, x: Tensor, bucket: Tensor, lengths: Tensor | null): void {
    using _scope = this.params.device.scope();
    const { dtype, residual } = this;
    const b = `blocks.${i}`;
    const bias = relativeBias(this.params.tensor(`${b}.pos_embedding.embedding.weight`), bucket, statDType(dtype));
    const n = this.norm(`${b}.norm1.weight`, x, dtype);
    const [q, k, v] = ["q", "k", "v"].map((part) => this.linear(`${b}.attn.${part}.weight`, n, dtype));
    // T5 does not scale the scores: the scale is part of its initialisation.
    x.axpy(this.linear(`${b}.attn.o.weight`, biasAttention({ q, k, v }, bias, lengths, 1), residual));
    const m = this.norm(`${b}.norm2.weight`, x, dtype);
    const [gate, up] = ["gate.0", "fc1"].map((part) => this.linear(`${b}.ffn.${part}.weight`, m, dtype));
    // The product of two f16 values may overflow f16.
    const hidden = geluGate(up, gate, dtype === "f16" ? "f32" : dtype);
    x.axpy(this.linear(`${b}.ffn.fc2.weight`, hidden, residual));
  }

  private linear(name: string, x: Tensor, dtype: DType): Tensor {
    return linear(this.tape(), constant(x), { w: this.params.get(name), b: null }, dtype).x;
  }

  private norm(name: string, x: Tensor, dtype: DType): Tensor {
    const { dim, eps } = this.config;
    return rmsNormRope(this.tape(), constant(x), this.params.get(name), {
      heads: 1,
      group: dim,
      rope: null,
      pairing: "interleaved",
      eps,
      dtype,
    }).x;
  }

  private tape(): Tape {
    return new Tape(this.params.device, { record: false });
  }

  /** Frees the weights and returns their memory to the system. */
  [Symbol.dispose](): void {
    this.params.flat.free();
    this.params.device.trim();
  }
}
