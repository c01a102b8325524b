import type { HostTensor } from "../dtype.ts";

/** The first frames of a latent, channel by channel. Shapes: [C, T, Y, X] -> [C, frames, Y, X]. */
export function cutFrames(t: HostTensor, frames: number): HostTensor {
  const [C, T, Y, X] = t.shape.slice(-4);
  if (T === frames) return t;
  const [from, to] = [t.data.length / C, (t.data.length / C / T) * frames];
  const data = new Uint8Array(new ArrayBuffer(C * to));
  for (let c = 0; c < C; c++) data.set(t.data.subarray(c * from, c * from + to), c * to);
  return { dtype: t.dtype, shape: [C, frames, Y, X], data };
}
