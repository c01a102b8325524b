import { hostTensor, hostValues, numel, type DType, type HostTensor } from "../../../core/dtype.ts";

/** An array in f64, rows last, as the references take and give it. */
export interface Plain {
  v: Float64Array;
  shape: readonly number[];
}

export const plain = (shape: readonly number[], v: Float64Array = new Float64Array(numel(shape))): Plain => ({
  v,
  shape,
});
export const plainOf = (t: HostTensor): Plain => plain(t.shape, hostValues(t));

/** The values that remain when an array is stored as `dtype`. */
export const storedAs = (dtype: DType, { v, shape }: Plain): Plain =>
  plain(shape, hostValues(hostTensor(dtype, [...shape], v)));
