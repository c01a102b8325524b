import { createHash } from "node:crypto";
import { existsSync, readFileSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import type { DType, HostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { writeFileAtomic } from "../io/atomic.ts";
import { fileKey, shardPath } from "../io/webdataset.ts";
import type { Shard } from "../io/shard.ts";
import type { TeacherSampler } from "../samplers/list.ts";
import type { Tensor } from "../tensor.ts";
import { draw, stopPoint, yieldToEventLoop } from "../networks/draw.ts";
import { drawNet } from "../networks/net.ts";
import type { Network } from "../networks/network.ts";
import { teacherPlan } from "../networks/plan.ts";
import { ShardAppender } from "../data/appender.ts";
import { swapFramesAndChannels, swappedShape } from "../data/latents.ts";
import type { TimePrecision } from "../models/family.ts";

/** How the teacher is sampled. The command's defaults are those of the public data set. */
export interface SynthSampler {
  kind: TeacherSampler;
  steps: number;
  sigmaMax: number;
  shift: number;
  guidance: number;
  /** Sample i starts from noise of seed + i. */
  seed: number;
}

export interface SynthOptions {
  out: string;
  prompts: readonly string[];
  /** Shapes: [length, width] bf16 each. */
  embed: (prompts: readonly string[]) => Promise<HostTensor[]>;
  /** Embedding of the negative prompt. Shapes: [1, length, width]. */
  negative: Tensor | null;
  /** Shape of a stored latent: channels, frames, rows, columns. */
  shape: readonly number[];
  sampler: SynthSampler;
  time: TimePrecision;
  batch: number;
  perShard: number;
  /** This job writes the tars whose number is `index` modulo `count`. */
  job: Shard;
  /** Everything else that the samples depend on, such as the teacher's file and the negative prompt. */
  identity: Record<string, unknown>;
  shouldStop: () => boolean;
  onEvent?: (done: number, total: number, secondsPerSample: number) => void;
}

export interface SynthSummary {
  out: string;
  /** Samples of this job, and the number that already existed. */
  samples: number;
  kept: number;
  shards: number;
  seconds: number;
  secondsPerSample: number;
  peakBytes: number;
}

/** Identity of a weight file for the manifest: its name and size. */
export const fileIdentity = (path: string): Record<string, unknown> => ({
  name: basename(path),
  bytes: statSync(path).size,
});

/** Writes `synth.json` or compares with an existing one. Throws: E_STATE when they differ. */
function checkSettings(o: SynthOptions, dtype: DType): void {
  const path = join(o.out, "synth.json");
  const { shape, sampler, time, perShard } = o;
  const sha256 = createHash("sha256").update(o.prompts.join("\n")).digest("hex").slice(0, 16);
  const prompts = { count: o.prompts.length, sha256 };
  const settings = JSON.stringify({ shape, sampler, time, dtype, perShard, prompts, ...o.identity }, null, 2);
  if (!existsSync(path)) return writeFileAtomic(path, `${settings}\n`);
  const existing = readFileSync(path, "utf8").trim();
  if (existing === settings) return;
  const [a, b] = [existing, settings].map((t) => new Set(t.split("\n")));
  const differs = [...b].find((line) => !a.has(line)) ?? "its keys";
  const message = `${o.out} holds samples made with other settings (here: ${differs.trim()}); use another folder`;
  throw new RcmError("E_STATE", message, { op: "synth" });
}

/**
 * Samples a teacher for prompts and writes webdataset shards in the public format. Finished shards are kept, an
 * unfinished one is continued after its last complete sample. Sample i depends only on (seed, i) and its prompt, not on
 * jobs, batches or interruptions.
 * Throws: E_INTERRUPTED between two network evaluations, E_STATE when the folder holds other samples, E_NONFINITE.
 */
export async function synthesize(teacher: Network, o: SynthOptions): Promise<SynthSummary> {
  const { device } = teacher.params;
  checkSettings(o, teacher.params.dtype);
  const rest = "whole samples are on disk, the same command goes on";
  const stop = stopPoint(o.shouldStop, "synth", () => `stopped by a signal; ${rest}`);
  const shards = Math.ceil(o.prompts.length / o.perShard);
  const mine = Array.from({ length: shards }, (_, k) => k).filter((k) => k % o.job.count === o.job.index);
  const span = (k: number): [number, number] => [k * o.perShard, Math.min(o.prompts.length, (k + 1) * o.perShard)];
  const total = mine.reduce((n, k) => n + span(k)[1] - span(k)[0], 0);
  const began = performance.now();
  let [done, kept] = [0, 0];
  const per = (): number => (done > kept ? (performance.now() - began) / 1000 / (done - kept) : 0);
  for (const k of mine) {
    const [first, end] = span(k);
    const path = shardPath(o.out, k);
    if (existsSync(path)) {
      done += end - first;
      kept += end - first;
      o.onEvent?.(done, total, per());
      continue;
    }
    using shard = new ShardAppender(path);
    shard.keys.forEach((key, i) => {
      const want = fileKey(String(first + i));
      if (key === want && first + i < end) return;
      throw new RcmError("E_STATE", `${path}.tmp holds another sample; remove it`, { op: "synth", want, got: key });
    });
    const from = first + shard.keys.length;
    done += from - first;
    kept += from - first;
    const embeds = from < end ? await o.embed(o.prompts.slice(from, end)) : [];
    for (let start = from; start < end; start += o.batch) {
      await yieldToEventLoop();
      stop();
      using _scope = device.scope();
      const part = embeds.slice(start - from, Math.min(end, start + o.batch) - from);
      const latents = await latentsOf(teacher, o, { embeds: part, first: start, stop });
      part.forEach((embed, b) => {
        const latent = latents[b];
        shard.append({ key: fileKey(String(start + b)), latent, embed, prompt: o.prompts[start + b] });
        done++;
      });
      o.onEvent?.(done, total, per());
    }
    shard.finish();
  }
  return {
    out: o.out,
    samples: done,
    kept,
    shards: mine.length,
    seconds: (performance.now() - began) / 1000,
    secondsPerSample: per(),
    peakBytes: device.memory().peak,
  };
}

interface SynthBatch {
  embeds: readonly HostTensor[];
  /** Number of the batch's first prompt. */
  first: number;
  stop: () => void;
}

/** Latents of prompts first, first + 1, ... as bf16. Throws: E_NONFINITE naming the prompt's number. */
async function latentsOf(teacher: Network, o: SynthOptions, batch: SynthBatch): Promise<HostTensor[]> {
  const { embeds, first, stop } = batch;
  const { sampler: s, shape } = o;
  const { device, dtype } = teacher.params;
  const condition = device.empty([embeds.length, ...embeds[0].shape], dtype);
  embeds.forEach((host, b) => condition.window(b * (condition.numel / embeds.length), host.shape).setHost(host));
  const plan = teacherPlan({ ...s, sampler: s.kind });
  const noise = embeds.map((_, b) => ({ seed: s.seed + first + b, index: 0 }));
  const job = { plan, shape: swappedShape(shape), noise, condition, negative: o.negative?.to(dtype) ?? null };
  const x = await draw(drawNet(teacher), job, { stopPoint: stop, nameOf: (b) => `prompt ${first + b}` });
  const half = x.to("bf16");
  const each = half.numel / embeds.length;
  return embeds.map((_, b) => swapFramesAndChannels(half.window(b * each, swappedShape(shape)).toHost()));
}
