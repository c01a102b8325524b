import type { DType } from "../dtype.ts";
import type { Device, Tensor } from "../tensor.ts";
import type { RopeTables } from "../ops/rms_norm_rope.ts";

/** How a head's width K is split over the frame, row and column axes: K - 4 floor(K/6) and twice 2 floor(K/6). */
export function ropeSplit(headDim: number): [number, number, number] {
  const side = 2 * Math.floor(headDim / 6);
  return [headDim - 2 * side, side, side];
}

/**
 * Angles of 3D rotary embedding, for frame, row and column in that order.
 * Shapes: grid [T, Y, X] tokens -> [L, K/2] row-major. Source: Wan2.1; base 10000, angle = position * base^(-2i/part).
 */
export function ropeAngles(headDim: number, grid: readonly [number, number, number]): Float64Array {
  const parts = ropeSplit(headDim);
  const [T, Y, X] = grid;
  const out = new Float64Array(T * Y * X * (headDim / 2));
  let at = 0;
  for (let t = 0; t < T; t++) {
    for (let y = 0; y < Y; y++) {
      for (let x = 0; x < X; x++) {
        for (const [axis, position] of [t, y, x].entries()) {
          const part = parts[axis];
          for (let i = 0; i < part / 2; i++) out[at++] = position * 10000 ** ((-2 * i) / part);
        }
      }
    }
  }
  return out;
}

/** Tables by head width, grid and dtype. They live as long as their device, and networks share them. */
const made = new WeakMap<Device, Map<string, RopeTables>>();

/** cos and sin of the angles on the device, cached. Shapes: [L, K/2] each. */
export function ropeTables(
  device: Device,
  headDim: number,
  grid: readonly [number, number, number],
  dtype: DType,
): RopeTables {
  const known = made.get(device) ?? new Map<string, RopeTables>();
  made.set(device, known);
  const key = [headDim, ...grid, dtype].join(" ");
  const found = known.get(key);
  if (found) return found;
  const angles = ropeAngles(headDim, grid);
  const shape = [grid[0] * grid[1] * grid[2], headDim / 2];
  const table = (f: (angle: number) => number): Tensor =>
    device.persistent(() => device.fromValues(angles.map(f), shape, dtype));
  const tables = { cos: table(Math.cos), sin: table(Math.sin) };
  known.set(key, tables);
  return tables;
}
