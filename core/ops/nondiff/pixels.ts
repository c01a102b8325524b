import type { Tensor } from "../../tensor.ts";

/** round(255 (x + 1) / 2), clamped to [0, 255], channels last. Shapes: x [B, C, ...] in [-1, 1] -> u8 [B, ..., C]. */
export function pixels(x: Tensor): Tensor {
  const [B, C, ...grid] = x.shape;
  const out = x.device.empty([B, ...grid, C], "u8");
  const N = grid.reduce((n, d) => n * d, 1);
  x.device.lib.pixels({ x: x.ptr, out: out.ptr, B, C, N, dtype: x.code });
  return out;
}
