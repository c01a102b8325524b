import { RcmError } from "../error.ts";
import type { ParamSet } from "../nn/params.ts";
import { adamwStep } from "../ops/nondiff/adamw.ts";
import { sampleReduce, type Tensor } from "../tensor.ts";

export interface AdamWOptions {
  betas: readonly [number, number];
  eps: number;
  weightDecay: number;
  /** Clip gradients to this global norm; 0: none. */
  maxGradNorm: number;
}

/**
 * AdamW over a flat parameter buffer, with f32 moments, f32 master weights for bf16, and clipping and EMA in one pass.
 */
export class AdamW {
  readonly master: Tensor | null;
  readonly m: Tensor | null;
  readonly v: Tensor;
  /** Number of updates so far. */
  updates = 0;

  constructor(
    readonly params: ParamSet,
    readonly options: AdamWOptions,
  ) {
    const { device, flat, dtype, grad } = params;
    if (!grad) throw new RcmError("E_INTERNAL", "parameters without gradients", { op: "adamw" });
    if (dtype === "f64" || dtype === "f16") {
      throw new RcmError("E_DTYPE", "trainable weights are f32 or bf16", { op: "adamw", got: dtype });
    }
    const state = (): Tensor => device.persistent(() => device.zeros(flat.shape, "f32"));
    this.master = dtype === "f32" ? null : state();
    this.m = options.betas[0] > 0 ? state() : null;
    this.v = state();
    this.syncMaster();
  }

  /** Resets the master weights from the weights, after loading a checkpoint without masters. */
  syncMaster(): void {
    this.master?.set(this.params.flat);
  }

  /** The weights in full precision, flat f32: the masters, or the weights themselves. */
  get values(): Tensor {
    return this.master ?? this.params.flat;
  }

  /** Global L2 norm of the gradient. Blocks for the device. */
  gradNorm(): number {
    const grad = this.params.grad as Tensor;
    return Math.sqrt(sampleReduce(grad.view([1, grad.numel]), "squares")[0]);
  }

  /** One update from the accumulated gradient, which is then cleared. Source: Loshchilov & Hutter 2019. */
  step(lr: number, gradNorm: number, ema: { flat: Tensor; beta: number } | null): void {
    const { params, options: o } = this;
    const grad = params.grad as Tensor;
    const clip = o.maxGradNorm > 0 ? Math.min(1, o.maxGradNorm / (gradNorm + 1e-6)) : 1;
    adamwStep({
      param: params.flat, master: this.master, grad, m: this.m, v: this.v, ema, t: ++this.updates, lr, betas: o.betas,
      eps: o.eps, weightDecay: o.weightDecay, gradScale: clip,
    });
    params.zeroGrad();
  }
}
