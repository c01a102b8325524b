import { RcmError } from "../error.ts";
import { pixels } from "../ops/nondiff/pixels.ts";
import type { Tensor } from "../tensor.ts";

/** Receives the 8-bit RGB frames of one video in order. Shapes: each [height, width, 3]. */
export interface FrameSink {
  frame(pixels: Uint8Array): void;
  /** Finishes after the last frame and returns the file or folder. Throws: E_IO when the video could not be written. */
  close(): Promise<string>;
  /** Discards the video and removes its temporary files. */
  abort(): void;
}

/**
 * Converts a chunk to pixels on the device and copies it to the host one sample at a time, to bound host memory.
 * Shapes: chunk [B, 3, t, Y, X] in [-1, 1] -> frames of [Y, X, 3] handed to sinks[b].
 */
export function pushFrames(chunk: Tensor, sinks: readonly { frame(pixels: Uint8Array): void }[]): void {
  const [B, C, t, Y, X] = chunk.shape;
  if (chunk.shape.length !== 5 || C !== 3 || B !== sinks.length) {
    throw new RcmError("E_SHAPE", "frames come as [B, 3, t, Y, X], a sink a sample", {
      op: "frames",
      want: [sinks.length, 3, -1, -1, -1],
      got: chunk.shape,
    });
  }
  const { device } = chunk;
  using _scope = device.scope();
  const rgb = pixels(chunk);
  const each = Y * X * 3;
  sinks.forEach((sink, b) => {
    const { data } = rgb.window(b * t * each, [t, Y, X, 3]).toHost();
    for (let i = 0; i < t; i++) sink.frame(data.subarray(i * each, (i + 1) * each));
  });
}
