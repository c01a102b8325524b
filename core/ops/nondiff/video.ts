import type { DType } from "../../dtype.ts";
import { RcmError } from "../../error.ts";
import { expectShape, type Device, type Tensor } from "../../tensor.ts";

/**
 * Inference-only convolutions over video and the ops around them. Activations [T, Y, X, C] are one sample, channels
 * last.
 */

/** Geometry of a convolution with a kernel of `kernel` frames by `side` rows and columns. */
export interface ConvPlan {
  kernel: number;
  side: number;
  /** Stride over frames, and over rows and columns. */
  strideT: number;
  stride: number;
  /**
   * Zero padding before the first frame (`past` fills the nearest of it), and before the first row and column. Reads
   * past the end are zero too.
   */
  padT: number;
  pad: number;
  /** Convolves the input upsampled 2x by nearest neighbour; the weights are packed for that. */
  upsample: boolean;
  /** Number of channel groups that become separate frames. */
  split: number;
}

/** A causal convolution of stride 1: `side` is padded on both sides, frames only at the front. */
export const causal = (kernel: number, side: number, more: Partial<ConvPlan> = {}): ConvPlan => ({
  kernel, side, strideT: 1, stride: 1, padT: kernel - 1, pad: (side - 1) / 2, upsample: false, split: 1, ...more,
});

// The library reads it before the call returns. Built over an ArrayBuffer, as the collector may move small typed
// arrays.
const geometry = new BigInt64Array(new ArrayBuffer(17 * 8));

/**
 * Packs weights for conv3d, input channels zero-padded to `channels`.
 * Shapes: w [O, I, (kt,) k, k] -> [slices, O, channels].
 */
export function packConv(
  w: Tensor,
  channels: number,
  plan: Pick<ConvPlan, "kernel" | "side" | "upsample">,
  dtype: DType = w.dtype,
): Tensor {
  const [O, I] = w.shape;
  if (w.numel !== O * I * plan.kernel * plan.side ** 2) {
    throw new RcmError("E_SHAPE", "w is not of this kernel", {
      op: "conv3d_pack",
      want: [O, I, plan.kernel, plan.side, plan.side],
      got: w.shape,
    });
  }
  const out = w.device.empty([plan.upsample ? 16 : plan.kernel * plan.side ** 2, O, channels], dtype);
  w.device.lib.conv3dPack({
    w: w.ptr, p: out.ptr, O, I, Ip: channels, kt: plan.kernel, k: plan.side, upsample: plan.upsample ? 1 : 0,
    wDtype: w.code, pDtype: out.code,
  });
  return out;
}

/**
 * Output shape of conv3d for x [T, Y, X, C] with `past` frames before it, before (`sum`) and after (`y`) upsampling and
 * splitting. Padding at the far end gives Y/stride rows and X/stride columns.
 */
export function convShape(
  x: readonly number[],
  past: number,
  out: number,
  p: ConvPlan,
): { sum: number[]; y: number[] } {
  const [T, Y, X] = x;
  const frames = Math.floor((T + p.padT - p.kernel) / p.strideT) + 1;
  const sum = [Math.max(frames, 0), Math.floor(Y / p.stride), Math.floor(X / p.stride), out];
  if (past > p.padT) {
    throw new RcmError("E_SHAPE", "more past frames than the kernel looks back", {
      op: "conv3d",
      want: p.padT,
      got: past,
    });
  }
  const grow = p.upsample ? 2 : 1;
  return { sum, y: [sum[0] * p.split, sum[1] * grow, sum[2] * grow, out / p.split] };
}

export interface ConvInputs {
  x: Tensor;
  /** Frames before x; null: zeros. */
  past?: Tensor | null;
  w: Tensor;
  b?: Tensor | null;
  /** Added to the result. */
  residual?: Tensor | null;
  /** Output buffer; null: a new tensor. */
  into?: Tensor | null;
}

/**
 * y = conv(past ++ x) + b + residual.
 * Shapes: x [T, Y, X, C], past [P, Y, X, C], w from packConv, b [O] -> convShape. Throws: E_SHAPE.
 */
export function conv3d({ x, past = null, w, b = null, residual = null, into = null }: ConvInputs, p: ConvPlan): Tensor {
  const [T, Y, X, C] = x.shape;
  const O = w.shape[1];
  expectShape("conv3d", "w", w, [p.upsample ? 16 : p.kernel * p.side ** 2, O, C]);
  if (past) expectShape("conv3d", "past", past, [past.shape[0], Y, X, C]);
  if (b) expectShape("conv3d", "b", b, [O]);
  const P = past?.shape[0] ?? 0;
  const { sum, y: shape } = convShape(x.shape, P, O, p);
  const y = into ?? x.device.empty(shape, x.dtype);
  for (const [name, t] of [["residual", residual], ["into", into]] as const) {
    if (t) expectShape("conv3d", name, t, shape);
  }
  for (const [name, t] of [["past", past], ["w", w], ["residual", residual], ["into", into]] as const) {
    if (t && t.dtype !== x.dtype) {
      throw new RcmError("E_DTYPE", `${name} has the wrong dtype`, { op: "conv3d", want: x.dtype, got: t.dtype });
    }
  }
  const counts = [
    T,
    Y,
    X,
    C,
    P,
    ...sum,
    p.kernel,
    p.side,
    p.strideT,
    p.stride,
    p.padT,
    p.pad,
    p.upsample ? 1 : 0,
    p.split,
  ];
  counts.forEach((n, i) => (geometry[i] = BigInt(n)));
  x.device.lib.conv3d({
    x: x.ptr, past: past?.ptr ?? 0, w: w.ptr, b: b?.ptr ?? 0, r: residual?.ptr ?? 0, y: y.ptr, geometry, dtype: x.code,
    bDtype: b?.code ?? x.code,
  });
  return y;
}

/** x / max(||x||, 1e-12) sqrt(C) gamma over the channels, then SiLU if `silu`. Shapes: x [..., C], gamma C values. */
export function channelNorm(x: Tensor, gamma: Tensor, silu: boolean, into: Tensor | null = null): Tensor {
  const C = x.shape[x.shape.length - 1];
  if (gamma.numel !== C) {
    throw new RcmError("E_SHAPE", "one gamma a channel", { op: "channel_norm", want: C, got: gamma.shape });
  }
  const y = into ?? x.device.empty(x.shape, x.dtype);
  x.device.lib.channelNorm({
    x: x.ptr, g: gamma.ptr, y: y.ptr, M: x.numel / C, C, silu: silu ? 1 : 0, eps: 1e-12, dtype: x.code,
    gDtype: gamma.code,
  });
  return y;
}

/** Per-channel scale and offset, on the device. */
export interface Affine {
  mul: Tensor;
  add: Tensor;
}
export const affine = (device: Device, mul: readonly number[], add: readonly number[]): Affine => ({
  mul: device.fromValues(mul, [mul.length], "f64"),
  add: device.fromValues(add, [add.length], "f64"),
});

/** A window of a video: frames, rows and columns. */
export interface Window {
  at: readonly [t: number, y: number, x: number];
  size: readonly [t: number, y: number, x: number];
}

/** A window of x [C, T, Y, X] as [t, y, x, channels], channels beyond C zero. */
export function toChannelsLast(
  x: Tensor,
  { at, size }: Window,
  channels: number,
  { dtype, map = null }: { dtype: DType; map?: Affine | null },
): Tensor {
  const [C, T, Y, X] = x.shape;
  if (at.some((a, i) => a < 0 || a + size[i] > x.shape[i + 1])) {
    throw new RcmError("E_SHAPE", "window outside the video", {
      op: "channels_last",
      want: [T, Y, X],
      got: at.map((a, i) => a + size[i]),
    });
  }
  const y = x.device.empty([...size, channels], dtype);
  const from = x.window((at[0] * Y + at[1]) * X + at[2], [1]);
  x.device.lib.channelsLast({
    x: from.ptr, mul: map?.mul.ptr ?? 0, add: map?.add.ptr ?? 0, y: y.ptr, C, T: size[0], Y: size[1], X: size[2],
    cStride: T * Y * X, tStride: Y * X, yStride: X, Cy: channels, xDtype: x.code, yDtype: y.code,
  });
  return y;
}

/** Writes the first C channels of x [t, Y, X, Cx] to frames [from, from + t) of y [C, T, Y, X]. */
export function fromChannelsLast(x: Tensor, y: Tensor, from: number, map: Affine | null = null): void {
  const [t, Y, X, Cx] = x.shape;
  const [C, T] = y.shape;
  expectShape("channels_first", "y", y, [C, T, Y, X]);
  const part = y.window(from * Y * X, [(C - 1) * T * Y * X + t * Y * X]);
  x.device.lib.channelsFirst({
    x: x.ptr, mul: map?.mul.ptr ?? 0, add: map?.add.ptr ?? 0, y: part.ptr, C, N: t * Y * X, Cx, yStride: T * Y * X,
    xDtype: x.code, yDtype: y.code,
  });
}

/** y = x w^T + b over the last axis; w may have trailing axes of size 1. Shapes: x [..., K], w [N, K] -> [..., N]. */
export function project(
  x: Tensor,
  w: Tensor,
  b: Tensor | null,
  { dtype = x.dtype, into = null }: { dtype?: DType; into?: Tensor | null } = {},
): Tensor {
  const [N, K] = w.shape;
  if (x.shape[x.shape.length - 1] !== K || w.numel !== N * K) {
    throw new RcmError("E_SHAPE", "w does not fit x", { op: "linear", want: x.shape, got: w.shape });
  }
  const y = into ?? x.device.empty([...x.shape.slice(0, -1), N], dtype);
  x.device.lib.linearFwd({
    x: x.ptr, w: w.ptr, b: b?.ptr ?? 0, y: y.ptr, M: x.numel / K, N, K, xDtype: x.code, wDtype: w.code, yDtype: y.code,
  });
  return y;
}

/** softmax(scale x) of each row. Shapes: x [M, N]. */
export function softmaxRows(x: Tensor, scale: number, dtype: DType): Tensor {
  const [M, N] = x.shape;
  const y = x.device.empty([M, N], dtype);
  x.device.lib.softmaxRows({ x: x.ptr, y: y.ptr, M, N, scale, xDtype: x.code, yDtype: y.code });
  return y;
}

/** Adds a tile to a larger picture, weighted by linear ramps at its sides. Shapes: x [..., h, w], y [..., H, W]. */
export function blendTile(
  x: Tensor,
  y: Tensor,
  at: readonly [number, number],
  ramps: { top: number; bottom: number; left: number; right: number },
): void {
  const [[h, w], [H, W]] = [x.shape.slice(-2), y.shape.slice(-2)];
  x.device.lib.blendTile({
    x: x.ptr, y: y.ptr, n: x.numel / (h * w), h, w, H, W, y0: at[0], x0: at[1], top: ramps.top, bottom: ramps.bottom,
    left: ramps.left, right: ramps.right, xDtype: x.code, yDtype: y.code,
  });
}
