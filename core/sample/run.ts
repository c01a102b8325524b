import { statSync } from "node:fs";
import { basename } from "node:path";
import type { DType, HostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { VAES } from "../models/families.ts";
import type { NetSpec, TimePrecision } from "../models/family.ts";
import type { WeightKind } from "../models/layout.ts";
import { Device, type DeviceName } from "../tensor.ts";
import { ImageFile, type ResizeFilter } from "../video/image.ts";
import { adaptiveSize, videoLatentShape, videoScale, type VideoSize } from "../video/sizes.ts";
import { embedAll, type OnTruncated, type TextShape } from "../text/embedder.ts";
import type { EncoderFiles } from "../text/encoder.ts";
import { openEmbedder } from "../text/open.ts";
import { openStored, readStoredText, StoredEmbedder } from "../text/stored.ts";
import { experts, MASK_CHANNELS } from "./i2v.ts";
import { openTiledVae } from "./open_parts.ts";
import { runPictures, type PictureSummary } from "./pictures.ts";
import { runVideos, type SampleEvent, type VideoSummary } from "./videos.ts";
import { planFields, samplePlan, type PlanSettings, type SamplePlan } from "../networks/plan.ts";
import { latentShape, type Recipe } from "../recipe/schema.ts";
import type { VideoFormat } from "./output.ts";
import type { SampleNet } from "../networks/net.ts";
import { findNet, openNet, type FoundNet } from "../networks/open.ts";
import type { LoadOptions, LoadProgress } from "../weights/fit.ts";
import type { Settings } from "../io/manifest.ts";
import type { Shard } from "../io/shard.ts";
import { workItems } from "./work.ts";

export interface SampleOptions {
  /** Defaults for absent options; null: published values. */
  recipe: Recipe | null;
  /** Null: inferred from the weights. */
  net: NetSpec | null;
  /** One network, or the two experts of Wan2.2. */
  weights: { path: string } | { high: string; low: string; boundary: number };
  kind: WeightKind;
  load?: LoadOptions;
  text: EncoderFiles | null;
  vae: { weights: string; tile: number } | null;
  /** Files with embeddings of the prompts and of the negative prompt. */
  embeds: string | null;
  negativeEmbeds: string | null;
  prompts: string[];
  /** Null: that of the recipe, or the empty prompt. */
  negativePrompt: string | null;
  each: number;
  plan: PlanSettings;
  size: VideoSize;
  frames: number;
  image: { path: string; adaptive: boolean; resize: ResizeFilter } | null;
  seed: number;
  batch: number;
  shard: Shard;
  out: string;
  overwrite: boolean;
  format: VideoFormat;
  saveLatents: boolean;
  dtype: DType;
  residual: DType;
  /** Network times: exact, or rounded to bf16 as the public code does. */
  time: TimePrecision;
  offload: boolean;
  device: DeviceName;
  threads?: number;
  onEvent?: (e: SampleEvent) => void;
  onTruncated?: OnTruncated;
  shouldStop?: () => boolean;
}

/** Identity of a file that survives a move: name and size. */
function identity(path: string): { name: string; bytes: number | null } {
  try {
    const s = statSync(path);
    return { name: basename(path), bytes: s.isDirectory() ? null : s.size };
  } catch (cause) {
    throw new RcmError("E_IO", `cannot read ${path}: ${(cause as Error).message}`, { op: "sample", cause });
  }
}

/** The negative prompt of classifier-free guidance, or the file of its embedding. */
interface Negative {
  prompt: string;
  file: string | null;
}

function negativeOf({ negativePrompt, negativeEmbeds, recipe }: SampleOptions, plan: SamplePlan): Negative | null {
  if (plan.guidance === 1) return null;
  const { negative_embed: stored = null, negative_prompt: prompt = "" } = recipe?.teacher ?? {};
  return { prompt: negativePrompt ?? prompt, file: negativeEmbeds ?? (negativePrompt === null ? stored : null) };
}

function settingsOf(o: SampleOptions, plan: SamplePlan, negative: Negative | null, size: VideoSize): Settings {
  const { weights } = o;
  return {
    weights: "path" in weights
      ? identity(weights.path)
      : { high: identity(weights.high), low: identity(weights.low), boundary: weights.boundary },
    kind: o.kind,
    plan: planFields(plan),
    text: o.embeds ? identity(o.embeds) : o.text && identity(o.text.weights),
    negative: negative?.file ? identity(negative.file) : (negative?.prompt ?? null),
    vae: o.vae && { ...identity(o.vae.weights), tile: o.vae.tile },
    image: o.image && { ...identity(o.image.path), resize: o.image.resize },
    seed: o.seed,
    each: o.each,
    frames: o.frames,
    ...size,
    format: o.format,
    dtype: o.dtype,
    residual: o.residual,
    time: o.time,
  };
}

interface FileTexts {
  texts: Map<string, HostTensor>;
  prompts: readonly string[];
  negativePrompt: string | null;
}

/** Embeddings from files, by prompt; without prompts, the names of the files are used. */
async function textsOfFiles(o: SampleOptions, negative: Negative | null, shape: TextShape): Promise<FileTexts> {
  let texts = new Map<string, HostTensor>();
  let prompts: readonly string[] = o.prompts;
  if (o.embeds !== null) {
    const stored = openStored(o.embeds);
    if (prompts.length > 0 && prompts.length !== stored.count) {
      const message = `${o.embeds} holds another number of texts than there are prompts`;
      throw new RcmError("E_ARG", message, { op: "usage", want: prompts.length, got: stored.count });
    }
    const embedder = new StoredEmbedder(stored, shape, prompts.length > 0 ? prompts : undefined);
    ({ prompts } = embedder);
    texts = await embedAll(embedder, prompts);
  }
  if (!negative?.file) return { texts, prompts, negativePrompt: negative?.prompt ?? null };
  const negativePrompt = negative.prompt === "" ? basename(negative.file) : negative.prompt;
  texts.set(negativePrompt, readStoredText(negative.file, shape));
  return { texts, prompts, negativePrompt };
}

/** Noise level of the first step of students that start from a picture. Source: public rCM code of Wan2.2 I2V. */
const PICTURE_SIGMA_MAX = 200;

/**
 * Draws the samples of prompts: opens the network, runs its sampler, and writes latents as pictures (of one channel and
 * frame) or as videos through a VAE. Throws: E_ARG, E_FORMAT; as `runPictures` and `runVideos`.
 */
export async function sampleRun(o: SampleOptions): Promise<PictureSummary | VideoSummary> {
  const image = o.image && (await ImageFile.open(o.image.path));
  const { weights, text, vae } = o;
  const paths = "path" in weights ? [weights.path] : [weights.high, weights.low];
  const found = paths.map((path) => findNet(path, o.kind, o.net));
  const [{ spec }] = found;
  const size = image && o.image?.adaptive ? adaptiveSize(o.size, image.size, spec) : o.size;
  const still = spec.latent.vae === null ? o.recipe : null;
  const shape = still ? latentShape(still) : videoLatentShape(o.frames, size, spec.latent);
  const channels = image ? MASK_CHANNELS + 2 * shape[0] : shape[0];
  const fits = found.every((f) => f.spec.latent.inputChannels === channels && f.spec.latent.channels === shape[0]);
  if (!fits) {
    const message = image ? "this network takes no picture" : "this network does not make videos of text alone";
    throw new RcmError("E_ARG", message, {
      op: "sample",
      want: `${channels} channels in, ${shape[0]} out`,
      got: `${spec.latent.inputChannels} in, ${spec.latent.channels} out`,
    });
  }
  const plan = samplePlan(o.plan, {
    recipe: o.recipe,
    secondTime: spec.config.secondTime,
    sigmaMax: image ? PICTURE_SIGMA_MAX : undefined,
  });
  const negative = negativeOf(o, plan);
  const { texts, prompts, negativePrompt } = await textsOfFiles(o, still ? null : negative, spec.text);
  if (prompts.length === 0) {
    const message = `no prompt: give --prompt, --prompts or ${still ? "sample.prompts" : "--embeds"}`;
    throw new RcmError("E_ARG", message, { op: "usage" });
  }
  using device = Device.open({ device: o.device, threads: o.threads });
  const load = { ...o.load, kind: o.kind, onProgress: (p: LoadProgress) => o.onEvent?.({ kind: "load", ...p }) };
  const net = (f: FoundNet, events: number): SampleNet =>
    openNet(device, f, {
      ...load,
      offload: o.offload ? { events } : null,
      net: { dtype: o.dtype, residual: o.residual, checkpoint: "none", time: o.time },
    });
  const { each, out, seed, batch, shouldStop } = o;
  if (still) {
    const onBatch = (done: number): void =>
      o.onEvent?.({ kind: "item", done, total: prompts.length * each, file: "pictures" });
    const { negativePrompt } = o;
    const job = { net: net(found[0], 0), plan, recipe: still, prompts, negativePrompt, each, out, seed, batch };
    return await runPictures(device, job, { onBatch, onTruncated: o.onTruncated, shouldStop });
  }
  return await runVideos(
    device,
    {
      text: text && (() => openEmbedder(device, { shape: spec.text, encoder: text, onTruncated: o.onTruncated })),
      net: () => ("path" in weights ? net(found[0], 0) : experts(net(found[0], 0), net(found[1], 4), weights.boundary)),
      vae: vae && (() => openTiledVae(device, vae, o.dtype, VAES[spec.latent.vae ?? ""])),
    },
    {
      items: workItems(prompts, each),
      shard: o.shard,
      out,
      settings: settingsOf(o, plan, negative, size),
      overwrite: o.overwrite,
      seed,
      batch,
      shape,
      scale: videoScale(spec),
      plan,
      negativePrompt,
      textShape: spec.text,
      texts,
      picture: image && o.image ? await image.pixels(size, o.image.resize) : null,
      format: o.format,
      saveLatents: o.saveLatents,
      offload: o.offload,
    },
    { onEvent: o.onEvent, shouldStop },
  );
}
