import type { HostTensor } from "../dtype.ts";
import type { Tensor } from "../tensor.ts";
import type { Vae } from "./vae.ts";

/**
 * Every frame of a decode in one tensor of the VAE's dtype.
 * Shapes: latent [B, C, t, y, x] -> [B, 3, 1 + s (t - 1), Y, X].
 */
export function decodeWhole(vae: Vae, latent: Tensor): Tensor {
  const { device, strides } = vae;
  const [B, , t, h, w] = latent.shape;
  const [T, Y, X] = [1 + (t - 1) * strides[0], h * strides[1], w * strides[2]];
  const video = device.empty([B, 3, T, Y, X], vae.dtype);
  vae.decode(latent, (part, first) => {
    const frames = part.shape[2];
    for (let i = 0; i < 3 * B; i++) {
      video.window((i * T + first) * Y * X, [frames, Y, X]).set(part.window(i * frames * Y * X, [frames, Y, X]));
    }
  });
  return video;
}

/**
 * Latents decoded to pixels and encoded again, as the public trainer does with every batch; the pixels are not clamped.
 * Shapes: [B, C, t, y, x] -> the same, f32.
 */
export function roundTrip(vae: Vae, latents: HostTensor): HostTensor {
  using _scope = vae.device.scope();
  return vae.encode(decodeWhole(vae, vae.device.fromHost(latents).to("f32"))).toHost();
}
