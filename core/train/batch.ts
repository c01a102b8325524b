import { cutFrames } from "../data/latents.ts";
import { numel, type HostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import type { Sample } from "../io/webdataset.ts";
import { latentShape, type Recipe } from "../recipe/schema.ts";

/** One micro-batch on the host. Shapes: latents [B, T, C, Y, X] (as stored: [B, C, T, Y, X]), embeds [B, M, D]. */
export interface HostBatch {
  latents: HostTensor;
  embeds: HostTensor;
}

/** One member of every sample, each checked against the shape it is stored with and cut, as a batch. */
interface Member {
  what: string;
  pick: (sample: Sample) => HostTensor;
  stored: readonly number[];
  cut: (t: HostTensor) => HostTensor;
  shape: readonly number[];
}

function joinMember(samples: readonly Sample[], { what, pick, stored, cut, shape }: Member): HostTensor {
  const first = pick(samples[0]);
  const each = cut(first).data.length;
  const data = new Uint8Array(new ArrayBuffer(each * samples.length));
  samples.forEach((sample, b) => {
    const t = pick(sample);
    const tail = t.shape.slice(-stored.length);
    if (t.dtype !== first.dtype || tail.some((d, i) => d !== stored[i]) || numel(t.shape) !== numel(stored)) {
      throw new RcmError("E_SHAPE", `${what} of sample ${sample.key} does not fit the recipe`, {
        op: "data", want: `${stored} ${first.dtype}`, got: `${t.shape} ${t.dtype}`,
      });
    }
    data.set(cut(t).data, b * each);
  });
  return { dtype: first.dtype, shape: [samples.length, ...shape], data };
}

/** Joins samples into one batch as stored, channels first, latents cut to the recipe's frames. Throws: E_SHAPE naming the sample that differs from the recipe. */
export function collate(samples: readonly Sample[], recipe: Recipe, embedShape: readonly number[]): HostBatch {
  const shape = latentShape(recipe);
  return {
    latents: joinMember(samples, { what: "latent", pick: (s) => s.latent, stored: recipe.data.shape, cut: (t) => cutFrames(t, shape[1]), shape }),
    embeds: joinMember(samples, { what: "embed", pick: (s) => s.embed, stored: embedShape, cut: (t) => t, shape: embedShape }),
  };
}
