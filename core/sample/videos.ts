import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { HostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { writeFileAtomic } from "../io/atomic.ts";
import { writeTorch } from "../io/torch.ts";
import type { Device, Tensor } from "../tensor.ts";
import { firstFrame } from "../video/image.ts";
import type { Picture } from "../video/sheet.ts";
import { videoOf } from "../video/sizes.ts";
import { textBatch, textsOf, type TextShape } from "../text/embedder.ts";
import { pictureCondition, withPicture } from "./i2v.ts";
import type { SampleNet } from "../networks/net.ts";
import { folderSheet, VideoWriter, type VideoFormat } from "./output.ts";
import type { PipelineParts, VideoVae } from "./parts.ts";
import { yieldToEventLoop, draw, stopPoint } from "../networks/draw.ts";
import { evaluationsOf, stepsOf, type SamplePlan } from "../networks/plan.ts";
import { Stages, type StageReport } from "./stages.ts";
import { Manifest, type ManifestEntry, type Settings } from "../io/manifest.ts";
import type { Shard } from "../io/shard.ts";
import { ofShard, type WorkItem } from "./work.ts";

export interface VideoJob {
  items: readonly WorkItem[];
  shard: Shard;
  out: string;
  /** What every sample has in common; another value of any of them is another folder. */
  settings: Settings;
  overwrite: boolean;
  seed: number;
  batch: number;
  /** Latent of one sample: [C, T, Y, X]. */
  shape: readonly [number, number, number, number];
  plan: SamplePlan;
  /** Null without guidance. */
  negativePrompt: string | null;
  textShape: TextShape;
  /** Embeddings that files give, by prompt; the text encoder makes the others. */
  texts: ReadonlyMap<string, HostTensor>;
  /** The first frame, for I2V. */
  picture: Picture | null;
  format: VideoFormat;
  saveLatents: boolean;
  /** Free what the device holds of the network while frames are decoded. */
  offload: boolean;
}

export type SampleEvent =
  | { kind: "stage"; text: string }
  | { kind: "load"; done: number; total: number; seconds: number }
  | { kind: "step"; step: number; steps: number; done: number; total: number }
  | { kind: "item"; done: number; total: number; file: string }
  | { kind: "warning"; message: string };

export interface VideoSummary {
  out: string;
  /** Videos (or latents) drawn now, in order, and how many were there already. */
  files: string[];
  skipped: number;
  sheet: string | null;
  width: number;
  height: number;
  frames: number;
  steps: number;
  evaluations: number;
  seconds: number;
  stages: StageReport[];
  /** Seconds of each step, a row a batch. */
  stepSeconds: number[][];
  /** Frames a second over diffusion and decoding, over diffusion alone; null when nothing was drawn. */
  fps: number | null;
  fpsWithoutVae: number | null;
  peakBytes: number;
  warnings: string[];
}

/** Draws every item of a shard that is not there yet. Throws: E_INTERRUPTED between two evaluations. */
export async function runVideos(device: Device, parts: PipelineParts, job: VideoJob, onEvent: (e: SampleEvent) => void = () => {}, shouldStop: () => boolean = () => false): Promise<VideoSummary> {
  const started = performance.now();
  const all = ofShard(job.items, job.shard);
  const manifest = Manifest.open(job.out, job);
  const pending = all.filter((item) => manifest.entryOf(item) === null);
  const run = new VideoRun(device, parts, job, manifest, pending, onEvent);
  if (pending.length > 0) {
    mkdirSync(job.out, { recursive: true });
    try {
      await run.texts();
      await run.draw(shouldStop);
    } finally {
      run.close();
    }
  }
  const entries = all.flatMap((item) => manifest.entryOf(item) ?? []);
  const sheetName = job.shard.count === 1 ? "sheet.png" : `sheet-${job.shard.index}-of-${job.shard.count}.png`;
  const sheet = run.stages.run("write", () => folderSheet(job.out, entries, sheetName));
  return run.summary((performance.now() - started) / 1000, all.length - pending.length, sheet);
}

class VideoRun {
  readonly stages: Stages;
  private readonly files: string[] = [];
  private readonly stepSeconds: number[][] = [];
  private readonly warnings: string[] = [];
  private readonly known: Map<string, HostTensor>;
  private readonly writer: VideoWriter;
  private net: SampleNet | null = null;
  private vae: VideoVae | null = null;
  private condition: Tensor | null = null;

  constructor(
    readonly device: Device,
    readonly parts: PipelineParts,
    readonly job: VideoJob,
    readonly manifest: Manifest,
    readonly pending: readonly WorkItem[],
    readonly onEvent: (e: SampleEvent) => void,
  ) {
    this.stages = new Stages(device);
    this.known = new Map(job.texts);
    this.writer = new VideoWriter(job.out, job.format, this.stages, (message) => {
      this.warnings.push(message);
      onEvent({ kind: "warning", message });
    });
  }

  /** Encodes the texts that no file gave, then frees the encoder. */
  async texts(): Promise<void> {
    const { job, parts } = this;
    const wanted = [...new Set([...this.pending.map((i) => i.prompt), ...(job.negativePrompt === null ? [] : [job.negativePrompt])])].filter((p) => !this.known.has(p));
    if (wanted.length === 0) return;
    if (!parts.text) throw new RcmError("E_ARG", "a prompt needs a text encoder or its embedding", { op: "usage", got: wanted[0] });
    this.onEvent({ kind: "stage", text: `encoding ${wanted.length} texts` });
    using embedder = this.stages.run("load text encoder", parts.text);
    const texts = await this.stages.runAsync("text", () => embedder.embed(wanted));
    wanted.forEach((prompt, i) => this.known.set(prompt, texts[i]));
  }

  private async openVae(): Promise<VideoVae> {
    const open = this.parts.vae;
    if (!open) throw new RcmError("E_ARG", "frames need a VAE", { op: "usage" });
    return (this.vae ??= await this.stages.runAsync("load VAE", async () => await open()));
  }

  /** Encodes the first frame before the network takes the device. */
  private async encodePicture(picture: Picture): Promise<Tensor> {
    this.device.trim();
    const vae = await this.openVae();
    const { frames } = videoOf(this.job.shape);
    const condition = this.stages.run("encode picture", () => {
      const scope = this.device.scope();
      try {
        const latent = vae.encode(firstFrame(this.device, picture, frames));
        return this.device.persistent(() => pictureCondition(latent));
      } finally {
        scope[Symbol.dispose]();
      }
    });
    this.device.trim();
    return condition;
  }

  async draw(shouldStop: () => boolean): Promise<void> {
    const { device, job, pending, parts } = this;
    device.trim();
    if (job.picture) this.condition = await this.encodePicture(job.picture);
    this.onEvent({ kind: "stage", text: "loading weights" });
    this.net = await this.stages.runAsync("load network", async () => await parts.net());
    const state = (): string => `stopped after ${this.files.length} of ${pending.length} samples`;
    const stop = stopPoint(shouldStop, "sample", () => `${state()}; run the same command again for the rest`);
    for (let at = 0; at < pending.length; at += job.batch) {
      await yieldToEventLoop();
      stop();
      using _scope = device.scope();
      const items = pending.slice(at, at + job.batch);
      const latents = await this.latents(items, at, stop);
      if (parts.vae) {
        if (at + job.batch >= pending.length) this.closeNet();
        else if (job.offload) this.net?.release();
        if (this.net === null || job.offload) device.trim();
      }
      for (const [b, item] of items.entries()) await this.finish(item, latents.window((b * latents.numel) / items.length, [1, ...job.shape]), at + b + 1);
      if (job.offload) device.trim();
    }
  }

  private async latents(items: readonly WorkItem[], done: number, stop: () => void): Promise<Tensor> {
    const { device, job, stages } = this;
    const net = this.net as SampleNet;
    const total = this.pending.length;
    const steps = stepsOf(job.plan);
    const seconds: number[] = [];
    this.stepSeconds.push(seconds);
    const onStep = (step: number, took: number): void => {
      seconds.push(took);
      this.onEvent({ kind: "step", step, steps, done, total });
    };
    const nameOf = (b: number): string => `sample ${items[b].name} ("${items[b].prompt}")`;
    return stages.runAsync("diffusion", async () => {
      using scope = device.scope();
      const { plan, shape } = job;
      const noise = items.map(({ index }) => ({ seed: job.seed, index }));
      const texts = (prompts: string[]): Tensor => textBatch(device, textsOf(this.known, prompts), job.textShape);
      const condition = texts(items.map((i) => i.prompt));
      const negative = job.negativePrompt === null ? null : texts([job.negativePrompt]);
      const seen = this.condition ? withPicture(net, this.condition) : net;
      const batch = { plan, shape, noise, condition, negative };
      return scope.keep(await draw(seen, batch, { onStep, stopPoint: stop, nameOf }));
    });
  }

  /** Decodes and writes one sample, then lists it as done. */
  private async finish(item: WorkItem, latent: Tensor, done: number): Promise<void> {
    const { job, parts, stages } = this;
    const entry: ManifestEntry = { index: item.index, prompt: item.prompt, file: `${item.name}.pt`, sheet: null, latents: null };
    if (job.saveLatents || !parts.vae) {
      stages.run("write", () => writeFileAtomic(join(job.out, `${item.name}.pt`), writeTorch(latent.view(job.shape).toHost())));
      entry.latents = `${item.name}.pt`;
    }
    if (parts.vae) Object.assign(entry, await this.writer.write(await this.openVae(), latent, item.name));
    stages.run("write", () => {
      writeFileAtomic(join(job.out, `${item.name}.json`), `${JSON.stringify({ ...job.settings, ...entry, seed: job.seed }, null, 1)}\n`);
      this.manifest.add(entry);
    });
    this.files.push(join(job.out, entry.file));
    this.onEvent({ kind: "item", done, total: this.pending.length, file: entry.file });
  }

  private closeNet(): void {
    this.net?.[Symbol.dispose]();
    this.net = null;
  }

  close(): void {
    this.closeNet();
    this.vae?.[Symbol.dispose]();
    this.condition?.free();
    [this.vae, this.condition] = [null, null];
  }

  summary(seconds: number, skipped: number, sheet: string | null): VideoSummary {
    const { job, stages } = this;
    const { width, height, frames } = videoOf(job.shape);
    const drawn = this.files.length * frames;
    const rate = (s: number): number | null => (drawn === 0 ? null : drawn / s);
    const report = stages.report();
    return {
      out: job.out, files: this.files, skipped, sheet, width, height, frames, steps: stepsOf(job.plan), evaluations: evaluationsOf(job.plan), seconds, stages: report,
      stepSeconds: this.stepSeconds, fps: this.parts.vae ? rate(stages.seconds("diffusion", "decode")) : null, fpsWithoutVae: rate(stages.seconds("diffusion")),
      peakBytes: Math.max(0, ...report.map((r) => r.peakBytes)), warnings: this.warnings,
    };
  }
}
