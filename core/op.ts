import type { Tensor } from "./tensor.ts";

/** What an op gives: its output, and tensors of its own that the vjp needs besides inputs and output. */
export interface Output {
  y: Tensor;
  own: Tensor[];
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
 * One differentiable operation. `forward` and `jvp` return the same primal (bit for bit, but for the exception rcm.h names); `jvp` adds the tangent of the
 * output in the same pass. `own` may be empty when `record` is false.
 */
export interface Op<P> {
  readonly name: string;
  /** Costly enough that a checkpoint mode keeps its output instead of computing it again: "matmul" both kinds, "attention" only that. */
  readonly costly?: "matmul" | "attention";
  forward(x: (Tensor | null)[], p: P, record: boolean): Output;
  jvp(x: (Tensor | null)[], xDot: (Tensor | null)[], p: P, record: boolean): Output & { yDot: Tensor };
  vjp(bar: Cotangents, yBar: Tensor, x: (Tensor | null)[], y: Tensor, own: Tensor[], p: P): void;
}
