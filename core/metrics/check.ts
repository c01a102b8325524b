import { RcmError } from "../error.ts";

/** Requires a whole number of at least `min`. Throws: E_ARG. */
export function checkCount(op: string, name: string, value: number, min: number): void {
  if (!Number.isInteger(value) || value < min) {
    throw new RcmError("E_ARG", `${name} is out of range`, {
      op,
      want: `a whole number >= ${min}`,
      got: String(value),
    });
  }
}

/** Requires `values` to hold `count` finite numbers. Throws: E_SHAPE, E_NONFINITE. */
export function checkFinite(op: string, name: string, values: ArrayLike<number>, count: number): void {
  if (values.length !== count) {
    throw new RcmError("E_SHAPE", `${name} has the wrong number of elements`, { op, want: count, got: values.length });
  }
  for (let i = 0; i < count; i++) {
    if (!Number.isFinite(values[i])) {
      throw new RcmError("E_NONFINITE", `${name}[${i}] is not finite`, { op, got: String(values[i]) });
    }
  }
}

/** Requires x to be a finite [n, d] matrix with at least `minRows` rows. Throws: E_ARG, E_SHAPE, E_NONFINITE. */
export function checkFeatures(op: string, x: ArrayLike<number>, [n, d]: readonly [number, number], minRows = 1): void {
  checkCount(op, "rows of x", n, minRows);
  checkCount(op, "columns of x", d, 1);
  checkFinite(op, "x", x, n * d);
}
