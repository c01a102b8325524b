import { ptrOf, type Tensor } from "../../tensor.ts";

export interface AdamWStep {
  /** Flat weights: f32, or bf16 with f32 master weights. */
  param: Tensor;
  master: Tensor | null;
  grad: Tensor;
  /** First moment; null when beta1 is 0. */
  m: Tensor | null;
  v: Tensor;
  /** EMA of the weights, updated in the same pass. */
  ema: { flat: Tensor; beta: number } | null;
  /** Number of this update, from 1. */
  t: number;
  lr: number;
  betas: readonly [number, number];
  eps: number;
  weightDecay: number;
  /** Scale of the gradient, for clipping. */
  gradScale: number;
}

/** One step of AdamW over flat buffers, in place. Source: Loshchilov & Hutter 2019. */
export function adamwStep(step: AdamWStep): void {
  const { param, master, grad, m, v, ema, t, lr, eps, weightDecay, gradScale } = step;
  const [beta1, beta2] = step.betas;
  param.device.lib.adamw({
    param: param.ptr, master: ptrOf(master), grad: grad.ptr, m: ptrOf(m), v: v.ptr, ema: ptrOf(ema?.flat),
    n: param.numel, lr, beta1, beta2, eps, weightDecay, bias1: 1 - beta1 ** t, bias2: 1 - beta2 ** t, gradScale,
    emaBeta: ema?.beta ?? 0, paramDtype: param.code,
  });
}
