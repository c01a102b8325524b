import type { DType } from "../dtype.ts";
import { swapOnDevice } from "../data/latents.ts";
import type { VaeFamily } from "../models/vae.ts";
import type { Device } from "../tensor.ts";
import { openVae } from "../weights/vae.ts";
import type { VideoVae } from "./parts.ts";

/** How far a tile reaches into the next one: a quarter of its side hides the seams of the receptive field. */
const overlapOf = (size: number): number => Math.max(2, Math.floor(size / 4));

/** The autoencoder of a file in any public spelling. Throws: E_FORMAT naming keys that do not fit. */
export function openTiledVae(device: Device, { weights, tile }: { weights: string; tile: number }, dtype: DType, family: VaeFamily): VideoVae {
  const vae = openVae(device, weights, dtype, family);
  const tiles = tile === 0 ? null : { size: tile, overlap: overlapOf(tile) };
  return {
    encode: (video) => swapOnDevice(vae.encode(video, { tile: tiles })),
    decode(latent, sink) {
      using _scope = device.scope();
      vae.decode(swapOnDevice(latent), sink, { tile: tiles });
    },
    [Symbol.dispose]() {
      vae.params[Symbol.dispose]();
      device.trim();
    },
  };
}
