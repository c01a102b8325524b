import type { Tensor } from "../tensor.ts";
import type { Embedder } from "../text/embedder.ts";
import type { SampleNet } from "../networks/net.ts";

/** A video autoencoder. Shapes: latent [B, T, C, Y, X]; frames [B, 3, t, 8Y, 8X] in [-1, 1], decoded in chunks. */
export interface VideoVae extends Disposable {
  encode(video: Tensor): Tensor;
  decode(latent: Tensor, sink: (frames: Tensor, first: number) => void): void;
}

/** Functions that open the parts of a pipeline, called when a part is first needed. Null: not used. */
export interface PipelineParts {
  text: (() => Embedder) | null;
  net: () => SampleNet | Promise<SampleNet>;
  vae: (() => VideoVae | Promise<VideoVae>) | null;
}
