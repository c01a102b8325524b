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
import { yieldToEventLoop, draw, stopPoint } from "../networks/draw.ts";
import { drawNet } from "../networks/net.ts";
import type { Network } from "../networks/network.ts";
import { teacherPlan } from "../networks/plan.ts";
import { ShardAppender } from "../data/appender.ts";
import type { TimePrecision } from "../models/family.ts";

/** How the teacher is sampled. The defaults of the command are those of the public set. */
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
  /** Latent shape: channels, frames, rows, columns. */
  shape: readonly number[];
  sampler: SynthSampler;
  time: TimePrecision;
  batch: number;
  perShard: number;
  /** This job writes the tars whose number is `index` modulo `count`. */
  job: Shard;
  /** What else the samples depend on (the teacher's file, the negative prompt); a folder holds samples of one such set. */
  identity: Record<string, unknown>;
  shouldStop: () => boolean;
  onEvent?: (done: number, total: number, secondsPerSample: number) => void;
}

export interface SynthSummary {
  out: string;
  /** Samples of this job, and how many of them were there before. */
  samples: number;
  kept: number;
  shards: number;
  seconds: number;
  secondsPerSample: number;
  peakBytes: number;
}

/** Identity of a weight file for the manifest: its name and size. */
export const fileIdentity = (path: string): Record<string, unknown> => ({ name: basename(path), bytes: statSync(path).size });

/** Writes `synth.json`, or compares with the one there. Throws: E_STATE when the folder holds samples of other settings. */
function claim(o: SynthOptions, dtype: DType): void {
  const path = join(o.out, "synth.json");
  const prompts = createHash("sha256").update(o.prompts.join("\n")).digest("hex").slice(0, 16);
  const mine = JSON.stringify({ shape: o.shape, sampler: o.sampler, time: o.time, dtype, perShard: o.perShard, prompts: { count: o.prompts.length, sha256: prompts }, ...o.identity }, null, 2);
  if (!existsSync(path)) return writeFileAtomic(path, `${mine}\n`);
  const theirs = readFileSync(path, "utf8").trim();
  if (theirs === mine) return;
  const [a, b] = [theirs, mine].map((t) => new Set(t.split("\n")));
  const differs = [...b].find((line) => !a.has(line)) ?? "its keys";
  throw new RcmError("E_STATE", `${o.out} holds samples made with other settings (here: ${differs.trim()}); use another folder`, { op: "synth" });
}

/**
 * Runs a teacher over prompts into webdataset shards of 256 (the public format). Finished shards are kept, an unfinished one goes on
 * after its last whole sample; sample i depends only on (seed, i) and its prompt, so jobs, batches and interruptions change nothing.
 * Throws: E_INTERRUPTED between two network evaluations, E_STATE when the folder holds other samples, E_NONFINITE.
 */
export async function synthesize(teacher: Network, o: SynthOptions): Promise<SynthSummary> {
  const { device } = teacher.params;
  claim(o, teacher.params.dtype);
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
      if (key !== fileKey(String(first + i)) || first + i >= end) throw new RcmError("E_STATE", `${path}.tmp holds another sample; remove it`, { op: "synth", want: fileKey(String(first + i)), got: key });
    });
    const from = first + shard.keys.length;
    done += from - first;
    kept += from - first;
    const embeds = from < end ? await o.embed(o.prompts.slice(from, end)) : [];
    for (let at_ = from; at_ < end; at_ += o.batch) {
      await yieldToEventLoop();
      stop();
      using _scope = device.scope();
      const part = embeds.slice(at_ - from, Math.min(end, at_ + o.batch) - from);
      const latents = await latentsOf(teacher, o, { embeds: part, first: at_, stop });
      part.forEach((embed, b) => {
        const latent = latents[b];
        shard.append({ key: fileKey(String(at_ + b)), latent, embed, prompt: o.prompts[at_ + b] });
        done++;
      });
      o.onEvent?.(done, total, per());
    }
    shard.finish();
  }
  return { out: o.out, samples: done, kept, shards: mine.length, seconds: (performance.now() - began) / 1000, secondsPerSample: per(), peakBytes: device.memory().peak };
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
  const job = { plan, shape, noise, condition, negative: o.negative?.to(dtype) ?? null };
  const x = await draw(drawNet(teacher), job, { stopPoint: stop, nameOf: (b) => `prompt ${first + b}` });
  const half = x.to("bf16");
  return embeds.map((_, b) => half.window(b * (half.numel / embeds.length), shape).toHost());
}
