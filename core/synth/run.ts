import type { HostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import type { Shard } from "../io/shard.ts";
import { Device, type DeviceName, type Tensor } from "../tensor.ts";
import { Network } from "../networks/network.ts";
import { loadFound } from "../weights/fit.ts";
import { openNetwork, specOf } from "../weights/resolve.ts";
import { padded, textBatch, type Embedder, type OnTruncated } from "../text/embedder.ts";
import type { EncoderFiles } from "../text/encoder.ts";
import { openEmbedder } from "../text/open.ts";
import { readPrompts } from "../text/prompts.ts";
import { readStoredText, StoredEmbedder } from "../text/stored.ts";
import { fileIdentity, synthesize, type SynthSampler, type SynthSummary } from "./synth.ts";
import type { TimePrecision } from "../models/family.ts";

export interface SynthRunOptions {
  weights: string;
  /** File with one prompt per line. */
  prompts: string;
  /** Maximum number of prompts; 0: all. */
  limit: number;
  out: string;
  /** File or folder of stored embeddings; null: `encoder` computes them. */
  embeds: string | null;
  encoder: EncoderFiles | null;
  /** Torch file with the negative embedding; null: `negativePrompt` is encoded. */
  negativeEmbed: string | null;
  negativePrompt: string;
  shape: readonly number[];
  sampler: SynthSampler;
  time: TimePrecision;
  dtype: "bf16" | "f32";
  residual: "bf16" | "f32";
  batch: number;
  perShard: number;
  job: Shard;
  device: DeviceName;
  threads?: number;
  shouldStop: () => boolean;
  onEvent?: (done: number, total: number, secondsPerSample: number) => void;
  onStage?: (text: string) => void;
  onTruncated?: OnTruncated;
}

/**
 * Opens the teacher and samples it for the prompts of a file.
 * Throws: E_ARG for a text with neither embedding nor encoder; as `synthesize`.
 */
export async function synthRun(o: SynthRunOptions): Promise<SynthSummary> {
  const all = readPrompts(o.prompts);
  const prompts = o.limit > 0 ? all.slice(0, o.limit) : all;
  const found = openNetwork(o.weights);
  const weights = found.checkpoint.path;
  const spec = specOf(found);
  const { config, latent } = spec;
  if (o.shape[0] !== latent.channels) {
    const detail = { op: "synth", want: latent.channels, got: o.shape[0] };
    throw new RcmError("E_ARG", "the latent's channels are not the teacher's", detail);
  }
  o.shape.slice(1).forEach((n, i) => {
    if (n % config.patch[i] !== 0) {
      const message = "frames, rows and columns of the latent are multiples of the patch";
      throw new RcmError("E_ARG", message, { op: "synth", want: config.patch, got: o.shape.slice(1) });
    }
  });
  const shape = spec.text;
  const guided = o.sampler.guidance !== 1;
  using device = Device.open({ device: o.device, threads: o.threads });
  const { encoder, onTruncated } = o;
  const embedder = openEmbedder(device, { shape, stored: o.embeds, prompts, encoder, onTruncated });
  const embed = async (by: Embedder, texts: readonly string[]): Promise<HostTensor[]> => {
    using opened = by;
    if (!(by instanceof StoredEmbedder)) o.onStage?.(`encoding ${texts.length} prompt${texts.length === 1 ? "" : "s"}`);
    return (await opened.embed(texts)).map((text) => padded(text, shape.length, "bf16"));
  };
  let negative: Tensor | null = null;
  if (guided) {
    const text = o.negativeEmbed === null
      ? (await embed(openEmbedder(device, { shape, encoder, onTruncated }), [o.negativePrompt]))[0]
      : padded(readStoredText(o.negativeEmbed, shape), shape.length, "bf16");
    negative = device.persistent(() => textBatch(device, [text], shape));
  }
  o.onStage?.(`loading ${weights}`);
  const teacher = Network.create(device, spec, {
    dtype: o.dtype,
    residual: o.residual,
    checkpoint: "none",
    time: o.time,
  });
  loadFound(teacher.params, found);
  const identity = {
    teacher: fileIdentity(weights),
    residual: o.residual,
    negative: guided ? (o.negativeEmbed === null ? o.negativePrompt : fileIdentity(o.negativeEmbed)) : null,
  };
  return await synthesize(teacher, { ...o, prompts, embed: (texts) => embed(embedder, texts), negative, identity });
}
