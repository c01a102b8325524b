import { lincomb } from "../ops/lincomb.ts";
import type { Tensor } from "../tensor.ts";
import { constant, Tape, type Var } from "../tape.ts";
import { trigCoefficients, type Curve } from "./path.ts";

/** A time with its tangent, one per sample [B] or per frame [B * T], on the host in f64. */
export interface Time {
  t: Float64Array;
  dot: Float64Array | null;
}

/** What the text (or nothing) contributes. Shapes: [B, M, textDim]. */
export type Condition = Tensor;

/** A rectified-flow network: velocity at an RF time. Shapes: x [B, T, C, Y, X] -> the same. Units: time.t is tRf in [0, 1]. */
export type VelocityNet = (tape: Tape, x: Var, tRf: Time, condition: Condition) => Var;

/** What the losses and samplers see of a network. Units: TrigFlow times. */
export interface Denoiser {
  /** F = cos eps - sin x0, the TrigFlow field. */
  field(tape: Tape, x: Var, tTrig: Time, condition: Condition): Var;
  /** The clean latent. */
  x0(tape: Tape, x: Var, tTrig: Time, condition: Condition): Var;
}

export const at = (t: Float64Array, dot: Float64Array | null = null): Time => ({ t, dot });

const scaled = (curve: Curve, time: Time) => ({ value: curve.value, dot: time.dot ? curve.rate.map((r, i) => r * (time.dot as Float64Array)[i]) : null });

/** Wraps a rectified-flow network as a TrigFlow denoiser; value, tangent and gradient all pass through. Source: rCM eq. 7-8. */
export function trigDenoiser(net: VelocityNet): Denoiser {
  const output = (tape: Tape, x: Var, time: Time, condition: Condition, kind: "field" | "x0"): Var => {
    const c = trigCoefficients(time.t);
    const rf = scaled(c.rf, time);
    const v = net(tape, lincomb(tape, [[scaled(c.input, time), x]]), { t: rf.value, dot: rf.dot }, condition);
    const [onX, onV] = kind === "field" ? [c.fieldX, c.fieldV] : [c.x0X, c.x0V];
    return lincomb(tape, [[scaled(onX, time), x], [scaled(onV, time), v]]);
  };
  return {
    field: (tape, x, time, condition) => output(tape, x, time, condition, "field"),
    x0: (tape, x, time, condition) => output(tape, x, time, condition, "x0"),
  };
}

/**
 * Classifier-free guidance: u + w (c - u) of the unconditional and conditional outputs (valid for F and x0 alike, both
 * being affine in v). A scale of 1 costs one evaluation.
 */
export function guided(inner: Denoiser, scale: number, uncondition: (B: number) => Condition): Denoiser {
  if (scale === 1) return inner;
  const mix = (tape: Tape, c: Var, u: Var): Var => lincomb(tape, [[{ value: scale }, c], [{ value: 1 - scale }, u]]);
  return {
    field: (tape, x, time, condition) => mix(tape, inner.field(tape, x, time, condition), inner.field(tape, x, time, uncondition(condition.shape[0]))),
    x0: (tape, x, time, condition) => mix(tape, inner.x0(tape, x, time, condition), inner.x0(tape, x, time, uncondition(condition.shape[0]))),
  };
}

/** Evaluates without record or tangent and frees the intermediates. Shapes: x [B, T, C, Y, X] -> the same. */
export function evaluate(output: Denoiser["field"], x: Tensor, tTrig: Float64Array, condition: Condition): Tensor {
  const scope = x.device.scope();
  try {
    const tape = new Tape(x.device, { record: false });
    return scope.keep(output(tape, constant(x), at(tTrig), condition).x);
  } finally {
    scope[Symbol.dispose]();
  }
}
