import type { DType, HostTensor } from "../../dtype.ts";
import { RcmError } from "../../error.ts";
import { dense, denseAct } from "../../nn/linear.ts";
import { ParamSet, type ParamSource } from "../../nn/params.ts";
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
import { expectShape, statDType, type Device, type Tensor } from "../../tensor.ts";
import { constant, type CheckpointMode, type Tape, type Var } from "../../tape.ts";
import type { WanConfig } from "./config.ts";
import { wanParams } from "./keys.ts";

/** A time on the host with its tangent, in the network's own units. Shapes: [B] each. */
export interface NetTime {
  t: Float64Array;
  dot: Float64Array | null;
  /** The same numbers where the device has them already, f64. */
  held?: { t: Tensor; dot: Tensor | null };
}

export interface WanOptions {
  /** Storage of weights and of activations inside a block. */
  dtype: DType;
  /** Storage of the residual stream and its tangent; "f32" beside bf16 weights keeps the tangent exact enough. */
  residual: DType;
  checkpoint: CheckpointMode;
  trainable: boolean;
}

/** Frees what backward does not ask for of a residual stream that has been read: its tangent, and without a record the value too. */
function release(tape: Tape, h: Var): void {
  h.dot?.free();
  if (!tape.record) h.x.free();
}

/** The Wan2.1 diffusion transformer: one graph for value, tangent and gradient. Source: Wan2.1 technical report, section 4. */
export class WanGraph {
  constructor(
    readonly config: WanConfig,
    /** Where weights come from: a whole set on the device, or blocks that are brought in as they are asked for. */
    private readonly weights: ParamSource,
    readonly options: WanOptions,
    /** Rotary tables by grid; they live as long as the device, so networks that differ in weights only share them. */
    protected readonly ropes = new Map<string, RopeTables>(),
  ) {}

  /**
   * One evaluation. The tangent of the output is formed when x or time carry one.
   * Shapes: x [B, C, T, Y, X], time [B], context [B, M, textDim] -> [B, C, T, Y, X]. Units: time in network units.
   */
  forward(tape: Tape, x: Var, time: NetTime, context: Var, second: NetTime | null = null): Var {
    const { config: c, options: o } = this;
    const [B, , T, Y, X] = x.x.shape;
    expectShape("wan", "x", x.x, [B, c.inDim, T, Y, X]);
    expectShape("wan", "context", context.x, [B, -1, c.textDim]);
    if (time.t.length !== B) throw new RcmError("E_SHAPE", "one time a sample", { op: "wan", want: B, got: time.t.length });
    if ((second !== null) !== c.secondTime) throw new RcmError("E_ARG", "a second time goes with secondTime", { op: "wan", want: c.secondTime, got: second !== null });
    const rope = this.rope([T / c.patch[0], Y / c.patch[1], X / c.patch[2]], tape.device);

    const embed = tape.block(o.checkpoint, (t_, [raw]) => {
      const patches = patchify(t_, raw, { patch: c.patch, order: "channel_first", dtype: o.dtype });
      return dense(t_, this.weights, "patch_embedding", patches, o.residual);
    }, [x]);
    const text = tape.block(o.checkpoint, (t_, [raw]) => dense(t_, this.weights, "text_embedding.2", denseAct(t_, this.weights, "text_embedding.0", raw, "gelu_tanh")), [this.cast(context)]);
    const e = this.timeEmbedding(tape, time, second);
    const projected = tape.reshape(dense(tape, this.weights, "time_projection.1", activation(tape, e, "silu")), [B, 6, c.dim]);

    let h = embed;
    for (let i = 0; i < c.layers; i++) {
      const next = tape.block(o.checkpoint, (t_, [h_, e_, text_]) => this.block(t_, i, h_, e_, text_, rope), [h, projected, text]);
      release(tape, h);
      h = next;
    }

    const out = tape.block(o.checkpoint, (t_, [h_, e_]) => {
      const modulation = addModulation(t_, this.weights.get("head.modulation"), e_);
      const normed = adaLayerNorm(t_, h_, modulation, { shift: 0, scale: 1, eps: c.eps, dtype: o.dtype });
      const patches = dense(t_, this.weights, "head.head", normed, o.residual);
      return unpatchify(t_, patches, { patch: c.patch, order: "channel_last", dtype: x.x.dtype, shape: [B, c.outDim, T, Y, X] });
    }, [h, tape.reshape(e, [B, 1, c.dim])]);
    release(tape, h);
    return out;
  }

  /** e = MLP(sinusoid(t)) (+ MLP_r(sinusoid(r))), in stat dtype. Shapes: [B] -> [B, D]. */
  private timeEmbedding(tape: Tape, time: NetTime, second: NetTime | null): Var {
    const one = (name: string, { t, dot, held }: NetTime): Var => {
      const dtype = statDType(this.options.residual);
      const vector = (v: Float64Array): Tensor => tape.device.fromValues(v, [v.length], "f64");
      const raw = timestepEmbed(tape, held ? constant(held.t, held.dot) : constant(vector(t), dot && vector(dot)), { width: this.config.freqDim, dtype });
      return dense(tape, this.weights, `${name}.2`, denseAct(tape, this.weights, `${name}.0`, raw, "silu"));
    };
    const e = one("time_embedding", time);
    return second ? add(tape, e, one("time_embedding_r", second)) : e;
  }

  private block(tape: Tape, i: number, x: Var, e: Var, text: Var, rope: RopeTables): Var {
    const { config: c, weights: p, options: o } = this;
    const b = `blocks.${i}`;
    const norm = (name: string, v: Var, tables: RopeTables | null): Var =>
      rmsNormRope(tape, v, p.get(`${b}.${name}.weight`), { heads: c.heads, group: c.dim, rope: tables, pairing: "interleaved", eps: c.eps, dtype: null });
    const modulation = addModulation(tape, p.get(`${b}.modulation`), e);

    const s = adaLayerNorm(tape, x, modulation, { shift: 0, scale: 1, eps: c.eps, dtype: o.dtype });
    const q = norm("self_attn.norm_q", dense(tape, p, `${b}.self_attn.q`, s), rope);
    const k = norm("self_attn.norm_k", dense(tape, p, `${b}.self_attn.k`, s), rope);
    const v = dense(tape, p, `${b}.self_attn.v`, s);
    const self = dense(tape, p, `${b}.self_attn.o`, attention(tape, q, k, v, c.heads));
    const x1 = gateResidual(tape, x, self, modulation, 2);

    const n = layerNorm(tape, x1, p.get(`${b}.norm3.weight`), p.get(`${b}.norm3.bias`), c.eps, o.dtype);
    const cq = norm("cross_attn.norm_q", dense(tape, p, `${b}.cross_attn.q`, n), null);
    const ck = norm("cross_attn.norm_k", dense(tape, p, `${b}.cross_attn.k`, text), null);
    const cv = dense(tape, p, `${b}.cross_attn.v`, text);
    const cross = dense(tape, p, `${b}.cross_attn.o`, attention(tape, cq, ck, cv, c.heads));
    const x2 = gateResidual(tape, x1, cross);

    const m = adaLayerNorm(tape, x2, modulation, { shift: 3, scale: 4, eps: c.eps, dtype: o.dtype });
    const ffn = dense(tape, p, `${b}.ffn.2`, denseAct(tape, p, `${b}.ffn.0`, m, "gelu_tanh"));
    return gateResidual(tape, x2, ffn, modulation, 5);
  }

  private cast(v: Var): Var {
    return v.x.dtype === this.options.dtype ? v : constant(v.x.to(this.options.dtype));
  }

  private rope(grid: [number, number, number], device: Device): RopeTables {
    const key = grid.join("x");
    const known = this.ropes.get(key);
    if (known) return known;
    const made = device.persistent(() => ropeTables(device, this.config.dim / this.config.heads, grid, statDType(this.options.residual)));
    this.ropes.set(key, made);
    return made;
  }
}

/** The network over a whole set of parameters. */
export class WanModel extends WanGraph {
  constructor(
    config: WanConfig,
    readonly params: ParamSet,
    options: WanOptions,
    ropes?: Map<string, RopeTables>,
  ) {
    super(config, params, options, ropes);
  }

  static create(device: Device, config: WanConfig, options: WanOptions): WanModel {
    return new WanModel(config, ParamSet.create(device, wanParams(config), options.dtype, options.trainable), options);
  }

  /** The same network over other weights of the same layout (EMA), frozen. */
  withWeights(flat: Tensor): WanModel {
    return new WanModel(this.config, this.params.over(flat), { ...this.options, dtype: flat.dtype, trainable: false }, this.ropes);
  }

  /** The same weights under activations, residual stream and tangents of another dtype; frozen. */
  withActivations(dtype: DType): WanModel {
    return new WanModel(this.config, this.params, { dtype, residual: dtype, checkpoint: "block", trainable: false });
  }

  load(weights: ReadonlyMap<string, HostTensor>, what: string): void {
    this.params.load(weights, what);
  }
}
