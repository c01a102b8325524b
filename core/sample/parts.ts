import type { Tensor } from "../tensor.ts";
import type { Embedder } from "../text/embedder.ts";
import type { SampleNet } from "../networks/net.ts";

/** Latents to frames in chunks, and frames to latents. Shapes: latent [B, T, C, Y, X]; frames [B, 3, t, 8Y, 8X] in [-1, 1]. */
export interface VideoVae extends Disposable {
  encode(video: Tensor): Tensor;
  decode(latent: Tensor, sink: (frames: Tensor, first: number) => void): void;
}

/** How the parts of a pipeline are opened; each is opened when it is needed and no sooner. Null: not asked for. */
export interface PipelineParts {
  text: (() => Embedder) | null;
  net: () => SampleNet | Promise<SampleNet>;
  vae: (() => VideoVae | Promise<VideoVae>) | null;
}
