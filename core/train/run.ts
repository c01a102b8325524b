import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { createHash } from "node:crypto";
import { join } from "node:path";
import type { HostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { JsonlWriter, writeFileAtomic } from "../io/atomic.ts";
import { EventWriter } from "../io/tfevents.ts";
import { listShards, ShardStream, type StreamPosition } from "../io/webdataset.ts";
import type { LoadedRecipe } from "../recipe/load.ts";
import { latentShape, type Recipe } from "../recipe/schema.ts";
import { Device, type DeviceName } from "../tensor.ts";
import { loadCheckpoint, saveCheckpoint, sweepCheckpoints } from "./checkpoint.ts";
import { listCheckpoints } from "../weights/run_folder.ts";
import { gridSheet, latentSheet } from "../data/sheet.ts";
import { VAES } from "../models/families.ts";
import { yieldToEventLoop, drawNow } from "../networks/draw.ts";
import { drawNet } from "../networks/net.ts";
import { gridPlans, type SamplePlan } from "../networks/plan.ts";
import { noiseKeys } from "../samplers/noise.ts";
import { roundTrip } from "../models/round_trip.ts";
import type { LoadOptions, LoadProgress } from "../weights/fit.ts";
import { openVae } from "../weights/vae.ts";
import { FROM_TEACHER, recipeNet } from "../networks/build.ts";
import type { OnTruncated } from "../text/embedder.ts";
import { collate } from "./batch.ts";
import { trainingTexts, type Texts } from "./texts.ts";
import { Trainer, type StepResult } from "./trainer.ts";

export interface DistillOptions {
  recipe: LoadedRecipe;
  out: string;
  device: DeviceName;
  threads?: number;
  resume: boolean;
  /** How starting weights are loaded. */
  load?: LoadOptions;
  onEvent: (event: TrainEvent) => void;
  onTruncated?: OnTruncated;
  /** True once a signal asked to stop: the loop writes a checkpoint and throws E_INTERRUPTED. */
  shouldStop: () => boolean;
}

export type TrainEvent =
  | ({ kind: "load" } & LoadProgress)
  | { kind: "start"; step: number; steps: number; device: string; parameters: number; resumed: boolean }
  | { kind: "step"; step: number; steps: number; secondsPerStep: number; result: StepResult }
  | { kind: "warning"; message: string }
  | { kind: "checkpoint"; step: number; path: string }
  | { kind: "sample"; step: number; path: string }
  | { kind: "done"; step: number; seconds: number };

export interface TrainSummary {
  out: string;
  steps: number;
  seconds: number;
  checkpoint: string;
  skipped: number;
  peakBytes: number;
  last: Record<string, number>;
}

/** Hash of what a checkpoint depends on; lengths, logging and sampling of a run may change between resumes. */
export function stateHash(recipe: Recipe): string {
  const { name: _name, extends: _extends, sample: _sample, eval: _eval, text: _text, train, data, teacher, model, ...rest } = recipe;
  const roundTrip = data.vae_round_trip === null ? undefined : true;
  const kept = { ...rest, batch: train.batch, accumulate: train.accumulate, seed: train.seed, shape: latentShape(recipe), roundTrip, guidance: teacher?.guidance, model: { ...model, init: null, checkpoint: null } };
  return createHash("sha256").update(JSON.stringify(kept)).digest("hex").slice(0, 16);
}

/** Trains a recipe to its end, or until told to stop. Throws: E_INTERRUPTED after a checkpoint; E_STATE when the folder holds another run. */
export async function distill(o: DistillOptions): Promise<TrainSummary> {
  const { recipe } = o.recipe;
  const { train } = recipe;
  const checkpoints = join(o.out, "checkpoints");
  const existing = listCheckpoints(checkpoints);
  if (existing.length > 0 && !o.resume) {
    throw new RcmError("E_STATE", `${o.out} already holds a run at step ${existing[existing.length - 1].step}; give --resume to go on, or another --out`, { op: "distill" });
  }
  mkdirSync(o.out, { recursive: true });
  using device = Device.open({ device: o.device, threads: o.threads });
  const spec = recipeNet(recipe);
  const text = await trainingTexts(device, recipe, spec.text, o.onTruncated);
  sweepCheckpoints(checkpoints);
  const resumed = existing.length > 0;
  const init = recipe.model.init;
  // A resumed student comes from its checkpoint.
  const student = resumed || init === "random" ? null : init === "teacher" ? FROM_TEACHER : init;
  const trainer = new Trainer(device, recipe, { teacher: recipe.teacher?.weights ?? null, student, options: { ...o.load, onProgress: (p) => o.onEvent({ kind: "load", ...p }) } }, text);
  const stream = new ShardStream({ paths: listShards(recipe.data.path), rank: 0, world: 1, seed: train.seed, shuffleBuffer: recipe.data.shuffle_buffer });
  const roundTripPath = recipe.data.vae_round_trip;
  const vae = roundTripPath === null ? null : openVae(device, roundTripPath, "bf16", VAES[spec.latent.vae ?? ""]);
  const hash = stateHash(recipe);
  if (resumed) stream.restore(loadCheckpoint(trainer, existing[existing.length - 1].path, hash, (message) => o.onEvent({ kind: "warning", message })));
  writeFileAtomic(join(o.out, "recipe.yaml"), o.recipe.resolved);

  const metrics = new MetricsLog(o.out, trainer.step);
  o.onEvent({ kind: "start", step: trainer.step, steps: train.steps, device: device.backend.info.device, parameters: trainer.role("student").network.params.count, resumed });
  const began = performance.now();
  let last: StepResult | null = null;
  let position: StreamPosition = stream.position();
  let saved = resumed ? trainer.step : -1;
  const save = (): string => {
    const path = saveCheckpoint(trainer, checkpoints, hash, position, train.keep_checkpoints);
    saved = trainer.step;
    o.onEvent({ kind: "checkpoint", step: trainer.step, path });
    return path;
  };
  try {
    while (trainer.step < train.steps) {
      const t0 = performance.now();
      const batches = Array.from({ length: train.accumulate }, () => {
        const batch = collate(Array.from({ length: train.batch }, () => stream.next()), recipe, [spec.text.length, spec.text.width]);
        return vae ? { ...batch, latents: roundTrip(vae, batch.latents) } : batch;
      });
      last = trainer.iterate(batches);
      position = stream.position();
      const secondsPerStep = (performance.now() - t0) / 1000;
      metrics.step(trainer.step, secondsPerStep, last);
      o.onEvent({ kind: "step", step: trainer.step, steps: train.steps, secondsPerStep, result: last });
      if (train.sample_every > 0 && trainer.step % train.sample_every === 0) {
        const path = drawSamples(trainer, text, o.out);
        metrics.image(trainer.step, path);
        o.onEvent({ kind: "sample", step: trainer.step, path });
      }
      if (trainer.step % train.checkpoint_every === 0 && trainer.step < train.steps) save();
      await yieldToEventLoop();
      if (o.shouldStop() && trainer.step < train.steps) {
        if (saved !== trainer.step) save();
        throw new RcmError("E_INTERRUPTED", `stopped at step ${trainer.step} of ${train.steps}; the checkpoint is written, go on with --resume`, { op: "distill" });
      }
    }
  } finally {
    metrics.close();
  }
  const checkpoint = saved === trainer.step ? listCheckpoints(checkpoints)[listCheckpoints(checkpoints).length - 1].path : save();
  const seconds = (performance.now() - began) / 1000;
  o.onEvent({ kind: "done", step: trainer.step, seconds });
  return { out: o.out, steps: trainer.step, seconds, checkpoint, skipped: trainer.skipped, peakBytes: device.memory().peak, last: last ? { ...last.stats, grad_norm: last.gradNorm } : {} };
}

/** metrics.jsonl and TensorBoard events of a run. Lines after the resumed step are cut, so every step stands once. */
class MetricsLog {
  private readonly lines: JsonlWriter;
  private readonly events: EventWriter;

  constructor(out: string, step: number) {
    const path = join(out, "metrics.jsonl");
    if (existsSync(path)) {
      const kept = readFileSync(path, "utf8").split("\n").filter((line) => line !== "" && stepOf(line) <= step);
      writeFileAtomic(path, kept.map((line) => `${line}\n`).join(""));
    }
    this.lines = new JsonlWriter(path);
    this.events = new EventWriter(join(out, "tensorboard"));
  }

  step(step: number, seconds: number, r: StepResult): void {
    const scalars = { ...r.stats, [`grad_norm_${r.kind}`]: r.gradNorm, [`lr_${r.kind}`]: r.lr, seconds };
    this.lines.write({ step, kind: r.kind, ...scalars, ...(r.skipped > 0 ? { skipped: r.skipped } : {}) });
    for (const [tag, value] of Object.entries(scalars)) this.events.scalar(tag, value, step);
  }

  image(step: number, path: string): void {
    const png = new Uint8Array(readFileSync(path));
    const view = new DataView(png.buffer, png.byteOffset);
    const size = { width: view.getUint32(16), height: view.getUint32(20) };
    this.events.image("samples", png, size, step);
  }

  close(): void {
    this.events.close();
    this.lines.close();
  }
}

function stepOf(line: string): number {
  try {
    return (JSON.parse(line) as { step: number }).step;
  } catch {
    return Number.POSITIVE_INFINITY; // a line cut by a crash
  }
}

/** Writes `samples/step_%09d.png`: a row of prompts per number of steps (a flow recipe: its own guided sampler). */
function drawSamples(trainer: Trainer, { negative, prompts: condition }: Texts, out: string): string {
  const { recipe, device } = trainer;
  using _scope = device.scope();
  const net = drawNet(trainer.sampler("ema"));
  const shape = latentShape(recipe);
  const count = condition.shape[0];
  // One at a time: a batch of videos would need the memory of all.
  const rowOf = (plan: SamplePlan): HostTensor[] =>
    Array.from({ length: count }, (_, i) => {
      using _one = device.scope();
      const text = condition.window(i * (condition.numel / count), [1, ...condition.shape.slice(1)]);
      const noise = noiseKeys(recipe.train.seed, i, 1);
      return drawNow(net, { plan, shape, noise, condition: text, negative }).toHost();
    });
  const rows = gridPlans(recipe).map(rowOf);
  mkdirSync(join(out, "samples"), { recursive: true });
  const path = join(out, "samples", `step_${String(trainer.step).padStart(9, "0")}.png`);
  writeFileAtomic(path, rows[0][0].shape[1] === 1 ? gridSheet(rows.flat(), count) : latentSheet(rows.flat(), count));
  return path;
}
