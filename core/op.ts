import { RcmError } from "./error.ts";
import type { Tensor } from "./tensor.ts";

/** Inputs of an op as a tuple; an optional input is `Tensor | null`. */
export type Inputs = readonly (Tensor | null)[];

/** Tangents of the inputs; null is a symbolic zero. The tape checks each against its primal. */
export type Tangents<I extends Inputs> = { readonly [K in keyof I]: Tensor | null };

/** An output with the tensors that the vjp needs besides inputs and output; empty when not recording. */
export interface Output<S extends readonly Tensor[] = readonly Tensor[]> {
  y: Tensor;
  saved: S | readonly [];
}

/** Receives the cotangents that a vjp computes. */
export interface Cotangents {
  /** Whether the cotangent of input i is needed. */
  need(i: number): boolean;
  /** Adds a complete cotangent of input i; the tensor may be shared (for example `yBar` itself). */
  put(i: number, xBar: Tensor): void;
  /** A buffer of input i's shape (stat dtype for parameters and modulation) that a kernel may add to. */
  accumulate(i: number): Tensor;
}

/**
 * One differentiable operation on inputs I with parameters P; S are the tensors it saves for the vjp. `forward` and
 * `jvp` return bitwise the same primal (rcm.h names the one exception); `jvp` adds the tangent of the output in the
 * same pass. Both check shape and dtype of every input before native code reads it.
 */
export interface Op<I extends Inputs, P, S extends readonly Tensor[] = readonly []> {
  readonly name: string;
  /**
   * Which selective-checkpointing modes keep the output instead of recomputing it: mode "matmul" keeps both kinds, mode
   * "attention" only "attention".
   */
  readonly costly?: "matmul" | "attention";
  forward(x: I, p: P, record: boolean): Output<S>;
  jvp(x: I, xDot: Tangents<I>, p: P, record: boolean): Output<S> & { yDot: Tensor };
  vjp(bar: Cotangents, yBar: Tensor, x: I, y: Tensor, saved: S, p: P): void;
}

/** An op whose input and parameter types are erased. */
export type AnyOp = Op<Inputs, unknown, readonly Tensor[]>;

/**
 * The tangent of the only input that may have one; the other inputs are parameters.
 * Throws: E_ARG if another has one.
 */
export function onlyTangent(op: string, xDot: readonly (Tensor | null)[], at = 0): Tensor {
  const found = xDot[at];
  const other = xDot.findIndex((t, i) => t !== null && i !== at);
  if (!found || other >= 0) throw new RcmError("E_ARG", "a parameter has no tangent", { op, want: at, got: other });
  return found;
}
