import type { Device, Tensor } from "../../core/tensor.ts";
import type { VideoVae } from "../../core/sample/parts.ts";
import type { Embedder } from "../../core/text/embedder.ts";
import { ByteEmbedder } from "../../core/text/tokenizers/bytes.ts";
import { TINY_WAN } from "./tiny_wan.ts";

/** What a pipeline opened and closed, in order. */
export type Log = string[];

/** Text by the byte encoder of the digits recipes. */
export function fakeText(log: Log, config = TINY_WAN): Embedder {
  log.push("open text");
  const shape = { width: config.textDim, length: config.textLen };
  const bytes = new ByteEmbedder(shape);
  return {
    ...shape,
    identity: bytes.identity,
    embed: (prompts) => (log.push(`encode ${prompts.join("|")}`), bytes.embed(prompts)),
    [Symbol.dispose]: () => void log.push("close text"),
  };
}

/**
 * A decoder that shows the first three latent channels as blocks of pixels, one chunk a latent frame; and its inverse
 * by picking pixels.
 */
export function fakeVae(device: Device, log: Log): VideoVae {
  log.push("open vae");
  return {
    encode(video) {
      const [, , F, Y, X] = video.shape;
      const [T, y, x] = [1 + (F - 1) / 4, Y / 8, X / 8];
      const v = video.values();
      log.push("encode picture");
      return device.fromValues(Float64Array.from({ length: 16 * T * y * x }, (_, i) => {
        const [t, c, r, q] = [
          Math.floor(i / (16 * y * x)), (Math.floor(i / (y * x)) % 16) % 3, Math.floor(i / x) % y, i % x,
        ];
        return v[((c * F + Math.min(F - 1, t * 4)) * Y + r * 8) * X + q * 8];
      }), [1, T, 16, y, x], "f32");
    },
    decode(latent, sink) {
      const [, T, C, y, x] = latent.shape;
      const v = latent.values();
      log.push("decode");
      for (let t = 0, first = 0; t < T; t++) {
        const frames = t === 0 ? 1 : 4;
        using _scope = device.scope();
        const chunk: Tensor = device.fromValues(Float64Array.from({ length: 3 * frames * y * 8 * x * 8 }, (_, i) => {
          const [c, r, q] = [Math.floor(i / (frames * y * x * 64)), Math.floor(i / (x * 8)) % (y * 8), i % (x * 8)];
          return Math.tanh(v[((t * C + c) * y + (r >> 3)) * x + (q >> 3)]);
        }), [1, 3, frames, y * 8, x * 8], "f32");
        sink(chunk, first);
        first += frames;
      }
    },
    [Symbol.dispose]: () => void log.push("close vae"),
  };
}
