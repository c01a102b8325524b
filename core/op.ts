import { RcmError } from "./error.ts";
import type { Tensor } from "./tensor.ts";

/** Inputs of an op, a tuple; an input that may be absent is `Tensor | null`. */
export type Inputs = readonly (Tensor | null)[];

/** Tangents of the inputs; null is a symbolic zero. The tape has checked each against its primal. */
export type Tangents<I extends Inputs> = { readonly [K in keyof I]: Tensor | null };

/** An output, and the tensors that the vjp needs besides inputs and output: none where nothing is recorded. */
export interface Output<S extends readonly Tensor[] = readonly Tensor[]> {
  y: Tensor;
  saved: S | readonly [];
}

/** Where a vjp leaves the cotangents of its inputs. */
export interface Cotangents {
  /** Whether the cotangent of input i is wanted at all. */
  need(i: number): boolean;
  /** Gives the whole cotangent of input i; the tensor may be shared (for example `yBar` itself). */
  put(i: number, xBar: Tensor): void;
  /** A buffer of input i's shape (stat dtype for parameters and modulation) that a kernel may add to. */
  accumulate(i: number): Tensor;
}

/**
 * One differentiable operation on inputs I with parameters P; S are the tensors it saves for the vjp. `forward` and
 * `jvp` return the same primal (bit for bit, but for the exception rcm.h names); `jvp` adds the tangent of the output
 * in the same pass. Both check shape and dtype of every input before native code reads it.
 */
export interface Op<I extends Inputs, P, S extends readonly Tensor[] = readonly []> {
  readonly name: string;
  /**
   * Costly enough that a checkpoint mode keeps its output instead of computing it again: "matmul" both kinds,
   * "attention" only that.
   */
  readonly costly?: "matmul" | "attention";
  forward(x: I, p: P, record: boolean): Output<S>;
  jvp(x: I, xDot: Tangents<I>, p: P, record: boolean): Output<S> & { yDot: Tensor };
  vjp(bar: Cotangents, yBar: Tensor, x: I, y: Tensor, saved: S, p: P): void;
}

/** Any op, where its inputs and parameters are not known by type. */
export type AnyOp = Op<Inputs, unknown, readonly Tensor[]>;

/** The tangent of the only input that may have one: the others are parameters. Throws: E_ARG when another has it. */
export function onlyTangent(op: string, xDot: readonly (Tensor | null)[], at = 0): Tensor {
  const found = xDot[at];
  const other = xDot.findIndex((t, i) => t !== null && i !== at);
  if (!found || other >= 0) throw new RcmError("E_ARG", "a parameter has no tangent", { op, want: at, got: other });
  return found;
}
