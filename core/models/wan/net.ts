import type { Time } from "../../diffusion/predict.ts";
import { fromBf16Bits, toBf16Bits } from "../../dtype.ts";
import { RcmError } from "../../error.ts";
import { dense, denseAct } from "../../nn/linear.ts";
import type { ParamSource } from "../../nn/params.ts";
import { ropeTables } from "../../nn/rope.ts";
import { activation } from "../../ops/activation.ts";
import { adaLayerNorm } from "../../ops/ada_layer_norm.ts";
import { addModulation } from "../../ops/add_modulation.ts";
import { add } from "../../ops/add.ts";
import { attention } from "../../ops/attention.ts";
import { gateResidual } from "../../ops/gate_residual.ts";
import { layerNorm } from "../../ops/layer_norm.ts";
import { patchify } from "../../ops/patchify.ts";
import { rmsNormRope, type RopeTables } from "../../ops/rms_norm_rope.ts";
import { timestepEmbed } from "../../ops/timestep_embed.ts";
import { unpatchify } from "../../ops/unpatchify.ts";
import { expectShape, statDType } from "../../tensor.ts";
import { constant, type Tape, type Var } from "../../tape.ts";
import type { Net, NetOptions } from "../family.ts";
import type { WanConfig } from "./config.ts";

const roundedToBf16 = (v: Float64Array): Float64Array => v.map((t) => fromBf16Bits(toBf16Bits(t)));

/** Frees what backward does not need of a consumed residual stream: its tangent and, unless recorded, its value. */
function release(tape: Tape, h: Var): void {
  h.dot?.free();
  if (!tape.record) h.x.free();
}

/**
 * The Wan2.1 diffusion transformer: one graph for value, tangent and gradient.
 * Source: Wan2.1 technical report, section 4.
 */
export class WanNet implements Net {
  constructor(
    readonly config: WanConfig,
    /** All weights on the device, or blocks streamed to it when they are used. */
    private readonly weights: ParamSource,
    readonly options: NetOptions,
  ) {}

  netTime({ t, dot }: Time): Time {
    const scaled = (v: Float64Array): Float64Array => v.map((x) => x * this.config.timeScale);
    const stored = this.options.time === "bf16" ? roundedToBf16 : (v: Float64Array): Float64Array => v;
    return { t: stored(scaled(t)), dot: dot && stored(scaled(dot)) };
  }

  /**
   * One evaluation. The output has a tangent when x or a time has one. With a time per frame, each frame is modulated
   * by its time.
   * Shapes: x [B, T, C, Y, X], times [B] or [B * T] f64, context [B, M, textDim] -> [B, T, C, Y, X].
   * Units: times in network units.
   */
  forward(tape: Tape, x: Var, times: readonly Var[], context: Var): Var {
    const { config: c, options: o } = this;
    const [B, T, , Y, X] = x.x.shape;
    const rows = this.check(x, times, context);
    const grid = [T, Y / c.patch[1], X / c.patch[2]] as const;
    const L = grid[0] * grid[1] * grid[2];
    const rope = ropeTables(tape.device, c.dim / c.heads, grid, statDType(o.residual));
    const { dtype } = x.x;

    const embed = tape.block(o.checkpoint, (inner, [raw]) => {
      const frames = inner.reshape(raw, [B * T, c.inDim, 1, Y, X]);
      const patches = patchify(inner, frames, { patch: c.patch, order: "channel_first", dtype: o.dtype });
      const tokens = inner.reshape(patches, [rows, (B * L) / rows, patches.x.shape[2]]);
      return dense(inner, this.weights, "patch_embedding", tokens, o.residual);
    }, [x]);
    const text = tape.block(o.checkpoint, (inner, [raw]) => {
      const hidden = denseAct(inner, this.weights, "text_embedding.0", raw, "gelu_tanh");
      return dense(inner, this.weights, "text_embedding.2", hidden);
    }, [this.cast(context)]);
    const e = this.timeEmbedding(tape, times);
    const projection = dense(tape, this.weights, "time_projection.1", activation(tape, e, "silu"));
    const e6 = tape.reshape(projection, [rows, 6, c.dim]);

    let h = embed;
    for (let i = 0; i < c.layers; i++) {
      const next = tape.block(o.checkpoint, (inner, inputs) => this.block(inner, i, inputs, rope), [h, e6, text]);
      release(tape, h);
      h = next;
    }

    const out = tape.block(o.checkpoint, (inner, [x, e]) => {
      const modulation = addModulation(inner, this.weights.get("head.modulation"), e);
      const normed = adaLayerNorm(inner, x, modulation, { shift: 0, scale: 1, eps: c.eps, dtype: o.dtype });
      const patches = dense(inner, this.weights, "head.head", normed, o.residual);
      const frames = inner.reshape(patches, [B * T, L / T, patches.x.shape[2]]);
      const shape = [B * T, c.outDim, 1, Y, X];
      const pixels = unpatchify(inner, frames, { patch: c.patch, order: "channel_last", dtype, shape });
      return inner.reshape(pixels, [B, T, c.outDim, Y, X]);
    }, [h, tape.reshape(e, [rows, 1, c.dim])]);
    release(tape, h);
    return out;
  }

  /** Checks the inputs of an evaluation and returns the number of times, B or B * T. Throws: E_SHAPE, E_ARG. */
  private check(x: Var, times: readonly Var[], context: Var): number {
    const { config: c } = this;
    const [B, T, , Y, X] = x.x.shape;
    expectShape("wan", "x", x.x, [B, T, c.inDim, Y, X]);
    expectShape("wan", "context", context.x, [B, -1, c.textDim]);
    if (c.patch[0] !== 1) {
      throw new RcmError("E_ARG", "a patch is of one frame", { op: "wan", want: [1, -1, -1], got: c.patch });
    }
    if (times.length !== (c.secondTime ? 2 : 1)) {
      const got = times.length === 2;
      throw new RcmError("E_ARG", "a second time goes with secondTime", { op: "wan", want: c.secondTime, got });
    }
    const rows = times[0].x.numel;
    if (rows !== B && rows !== B * T) {
      const want = `${B} or ${B * T}`;
      throw new RcmError("E_SHAPE", "one time per sample or per frame", { op: "wan", want, got: rows });
    }
    for (const time of times) expectShape("wan", "time", time.x, [rows]);
    return rows;
  }

  /** e = MLP(sinusoid(t)) (+ MLP_r(sinusoid(r))), in stat dtype. Shapes: [B] -> [B, D]. */
  private timeEmbedding(tape: Tape, [t, r]: readonly Var[]): Var {
    const one = (name: string, time: Var): Var => {
      const raw = timestepEmbed(tape, time, { width: this.config.freqDim, dtype: statDType(this.options.residual) });
      return dense(tape, this.weights, `${name}.2`, denseAct(tape, this.weights, `${name}.0`, raw, "silu"));
    };
    const e = one("time_embedding", t);
    return r ? add(tape, e, one("time_embedding_r", r)) : e;
  }

  /** Shapes: x [R, B L / R, D], e [R, 6, D], text [B, M, D], with R times -> as x. */
  private block(tape: Tape, i: number, [x, e, text]: readonly Var[], rope: RopeTables): Var {
    const { config: c, weights: p, options: o } = this;
    const b = `blocks.${i}`;
    const [R, perTime, D] = x.x.shape;
    const B = text.x.shape[0];
    // For modulation, the tokens that share a time are one row; for attention, those of a whole sample.
    const byTime = (v: Var): Var => (R === B ? v : tape.reshape(v, [R, perTime, D]));
    const bySample = (v: Var): Var => (R === B ? v : tape.reshape(v, [B, (R * perTime) / B, D]));
    const norm = (name: string, v: Var, tables: RopeTables | null): Var =>
      rmsNormRope(tape, v, p.get(`${b}.${name}.weight`), {
        heads: c.heads,
        group: c.dim,
        rope: tables,
        pairing: "interleaved",
        eps: c.eps,
        dtype: null,
      });
    const modulation = addModulation(tape, p.get(`${b}.modulation`), e);

    const s = bySample(adaLayerNorm(tape, x, modulation, { shift: 0, scale: 1, eps: c.eps, dtype: o.dtype }));
    const q = norm("self_attn.norm_q", dense(tape, p, `${b}.self_attn.q`, s), rope);
    const k = norm("self_attn.norm_k", dense(tape, p, `${b}.self_attn.k`, s), rope);
    const v = dense(tape, p, `${b}.self_attn.v`, s);
    const self = dense(tape, p, `${b}.self_attn.o`, attention(tape, { q, k, v }, c.heads));
    const x1 = gateResidual(tape, x, byTime(self), { modulation, slot: 2 });

    const [w3, b3] = [p.get(`${b}.norm3.weight`), p.get(`${b}.norm3.bias`)];
    const n = bySample(layerNorm(tape, x1, { w: w3, b: b3, eps: c.eps, dtype: o.dtype }));
    const cq = norm("cross_attn.norm_q", dense(tape, p, `${b}.cross_attn.q`, n), null);
    const ck = norm("cross_attn.norm_k", dense(tape, p, `${b}.cross_attn.k`, text), null);
    const cv = dense(tape, p, `${b}.cross_attn.v`, text);
    const cross = dense(tape, p, `${b}.cross_attn.o`, attention(tape, { q: cq, k: ck, v: cv }, c.heads));
    const x2 = gateResidual(tape, x1, byTime(cross));

    const m = adaLayerNorm(tape, x2, modulation, { shift: 3, scale: 4, eps: c.eps, dtype: o.dtype });
    const ffn = dense(tape, p, `${b}.ffn.2`, denseAct(tape, p, `${b}.ffn.0`, m, "gelu_tanh"));
    return gateResidual(tape, x2, ffn, { modulation, slot: 5 });
  }

  private cast(v: Var): Var {
    return v.x.dtype === this.options.dtype ? v : constant(v.x.to(this.options.dtype));
  }
}
