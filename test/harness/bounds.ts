import type { DType } from "../../core/dtype.ts";
import { relativeError } from "./golden.ts";
import { storedAs, type Plain } from "./reference/plain.ts";

/**
 * Bound of the error of a run in `dtype`: what its sums may lose (in 16 bits they are in f32) and twice the error of a
 * plain run, by default the exact result as it is stored.
 */
export function boundOf(
  dtype: DType, sums: { f64: number; f32: number }, exact: Plain, plainRun: Plain = storedAs(dtype, exact),
): number {
  return 2 * relativeError(plainRun.v, exact.v) + sums[dtype === "f64" ? "f64" : "f32"];
}
