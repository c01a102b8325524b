import type { HostTensor } from "../../dtype.ts";
import { spaceFactor, timeFactor } from "./config.ts";
import type { WanVae } from "./model.ts";
import type { Tensor } from "../../tensor.ts";

/** Every frame of a decode in one tensor of the VAE's dtype. Shapes: latent [B, z, t, h, w] -> [B, 3, 1 + 4 (t - 1), 8h, 8w]. */
export function decodeWhole(vae: WanVae, latent: Tensor): Tensor {
  const { device, config } = vae;
  const [B, , t, h, w] = latent.shape;
  const [Y, X, T] = [h * spaceFactor(config), w * spaceFactor(config), 1 + (t - 1) * timeFactor(config)];
  const video = device.empty([B, 3, T, Y, X], vae.options.dtype);
  vae.decode(latent, (part, first) => {
    const frames = part.shape[2];
    for (let i = 0; i < 3 * B; i++) video.window((i * T + first) * Y * X, [frames, Y, X]).set(part.window(i * frames * Y * X, [frames, Y, X]));
  });
  return video;
}

/**
 * Latents decoded to pixels and encoded again, as the public trainer does with every batch; the pixels are not clamped.
 * Shapes: [B, z, t, h, w] -> the same, f32.
 */
export function roundTrip(vae: WanVae, latents: HostTensor): HostTensor {
  using _scope = vae.device.scope();
  return vae.encode(decodeWhole(vae, vae.device.fromHost(latents).to("f32"))).toHost();
}
