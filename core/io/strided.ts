import { numel } from "../dtype.ts";

/** Strides of a row-major tensor, in elements. */
export function denseStrides(shape: readonly number[]): number[] {
  const out = shape.map(() => 1);
  for (let i = shape.length - 2; i >= 0; i--) out[i] = out[i + 1] * shape[i + 1];
  return out;
}

/** Whether elements are row-major without gaps; axes of one element may have any stride. */
export function isDense(shape: readonly number[], strides: readonly number[]): boolean {
  const dense = denseStrides(shape);
  return numel(shape) === 0 || shape.every((d, i) => d === 1 || strides[i] === dense[i]);
}

/** Elements from the first to the last, inclusive. */
export const spanOf = (shape: readonly number[], strides: readonly number[]): number =>
  numel(shape) === 0 ? 0 : shape.reduce((sum, d, i) => sum + (d - 1) * strides[i], 1);

/** Elements from the first of a block on; strides in elements. */
export interface StridedBytes {
  data: Uint8Array;
  strides: readonly number[];
}

/** Copies a block of elements of `each` bytes between two layouts. Shapes: `shape` of both. */
export function copyStrided(
  { data: from, strides: fromStrides }: StridedBytes,
  { data: to, strides: toStrides }: StridedBytes,
  shape: readonly number[],
  each: number,
): void {
  const n = numel(shape);
  if (n === 0) return;
  // Trailing axes that are dense on both sides are copied as one run.
  const dense = denseStrides(shape);
  let axes = shape.length;
  while (
    axes > 0 &&
    (shape[axes - 1] === 1 || (fromStrides[axes - 1] === dense[axes - 1] && toStrides[axes - 1] === dense[axes - 1]))
  )
    axes--;
  const run = numel(shape.slice(axes)) * each;
  const index = shape.slice(0, axes).map(() => 0);
  for (let a = 0, b = 0; ; ) {
    to.set(from.subarray(a * each, a * each + run), b * each);
    let axis = axes - 1;
    for (; axis >= 0; axis--) {
      a += fromStrides[axis];
      b += toStrides[axis];
      if (++index[axis] < shape[axis]) break;
      a -= index[axis] * fromStrides[axis];
      b -= index[axis] * toStrides[axis];
      index[axis] = 0;
    }
    if (axis < 0) return;
  }
}
