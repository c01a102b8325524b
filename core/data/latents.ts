import { dtypeBytes, type HostTensor } from "../dtype.ts";
import type { Tensor } from "../tensor.ts";

/**
 * Latents have two orders of axes. Files and autoencoders keep channels first, [.., C, T, Y, X], as the public data do. Inside
 * the program frames are first, [.., T, C, Y, X]: then frames can be taken for samples, with a diffusion time each, and a part
 * of the frames is contiguous.
 */

/** The shape of a latent in the other order. */
export const swappedShape = ([a, b, Y, X]: readonly number[]): [number, number, number, number] => [b, a, Y, X];

/** A latent, or a batch of them, in the other order. Shapes: [.., C, T, Y, X] -> [.., T, C, Y, X] and back. */
export function swapFramesAndChannels(t: HostTensor): HostTensor {
  const outer = t.shape.slice(0, -4);
  const [A, B, Y, X] = t.shape.slice(-4);
  const shape = [...outer, B, A, Y, X];
  if (A === 1 || B === 1) return { ...t, shape };
  const plane = Y * X * dtypeBytes(t.dtype);
  const data = new Uint8Array(new ArrayBuffer(t.data.length));
  for (let first = 0; first < t.data.length; first += A * B * plane) {
    for (let a = 0; a < A; a++) {
      for (let b = 0; b < B; b++) {
        const from = first + (a * B + b) * plane;
        data.set(t.data.subarray(from, from + plane), first + (b * A + a) * plane);
      }
    }
  }
  return { dtype: t.dtype, shape, data };
}

/** The same on the device. Shapes: [N, C, T, Y, X] -> [N, T, C, Y, X] and back. */
export function swapOnDevice(t: Tensor): Tensor {
  const [N, A, B, Y, X] = t.shape;
  const shape = [N, B, A, Y, X];
  if (A === 1 || B === 1) return t.view(shape);
  const out = t.device.empty(shape, t.dtype);
  const plane = Y * X;
  for (let n = 0; n < N; n++) {
    for (let a = 0; a < A; a++) {
      for (let b = 0; b < B; b++) {
        out.window(((n * B + b) * A + a) * plane, [plane]).set(t.window(((n * A + a) * B + b) * plane, [plane]));
      }
    }
  }
  return out;
}

/** The first frames of a stored latent, channel by channel. Shapes: [C, T, Y, X] -> [C, frames, Y, X]. */
export function cutFrames(t: HostTensor, frames: number): HostTensor {
  const [C, T, Y, X] = t.shape.slice(-4);
  if (T === frames) return t;
  const [from, to] = [t.data.length / C, (t.data.length / C / T) * frames];
  const data = new Uint8Array(new ArrayBuffer(C * to));
  for (let c = 0; c < C; c++) data.set(t.data.subarray(c * from, c * from + to), c * to);
  return { dtype: t.dtype, shape: [C, frames, Y, X], data };
}
