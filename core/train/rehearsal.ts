import { countingBackend } from "../../ffi/counting.ts";
import { counted } from "../../ffi/counting.ts";
import { swappedShape } from "../data/latents.ts";
import { dtypeBytes, numel, type HostTensor } from "../dtype.ts";
import { roundTrip } from "../models/round_trip.ts";
import { tokensOf } from "../models/family.ts";
import type { Vae } from "../models/vae.ts";
import type { FoundVae } from "../weights/vae.ts";
import { latentShape, type Recipe } from "../recipe/schema.ts";
import { drawNow } from "../networks/draw.ts";
import { drawNet } from "../networks/net.ts";
import { evaluationsOf, gridPlans } from "../networks/plan.ts";
import { noiseKeys } from "../samplers/noise.ts";
import { Device } from "../tensor.ts";
import type { CheckpointMode } from "../tape.ts";
import { checkpointBytes } from "./checkpoint.ts";
import { FROM_TEACHER, recipeNet } from "../networks/build.ts";
import type { HostBatch } from "./batch.ts";
import { Trainer, type Position } from "./trainer.ts";

/** What stays on the device for the whole run. */
export interface Resident {
  name: string;
  dtype: string;
  bytes: number;
}

/** Cost of one kind of iteration. */
export interface Turn {
  name: string;
  /** Memory on top of what is resident, at its most. */
  bytes: number;
  /** FLOP of matmuls and attention. */
  flop: number;
}

export interface Rehearsal {
  parameters: number;
  /** Tokens of one sample. */
  tokens: number;
  resident: Resident[];
  turns: Turn[];
  /** Mean FLOP of an iteration after the warm-up. */
  flopPerStep: number;
  /** Memory of a run at its most: resident and the largest turn, in blocks of the allocator. */
  peakBytes: number;
  checkpointBytes: number;
}

export interface RehearsalOptions {
  /** In place of the recipe's mode. */
  checkpoint?: CheckpointMode;
  /** The VAE that latents go through. */
  vae?: FoundVae | null;
}

const zeros = (shape: number[], dtype: "bf16" | "f32"): HostTensor => ({ dtype, shape, data: new Uint8Array(new ArrayBuffer(numel(shape) * dtypeBytes(dtype))) });

/**
 * Plays one iteration of every kind on a device that only counts: the same code, the same tensors, no memory and no arithmetic.
 * So the figures are those of a real run, but for the workspaces inside kernels (a few MiB).
 */
export function rehearse(original: Recipe, backend: "cpu" | "cuda", o: RehearsalOptions = {}): Rehearsal {
  const recipe: Recipe = { ...original, model: { ...original.model, checkpoint: o.checkpoint ?? original.model.checkpoint } };
  const base = countingBackend(backend);
  const { backend: counting, take } = counted(base, true);
  using device = new Device(counting);
  const { config, text: { length, width } } = recipeNet(recipe);
  const { train } = recipe;
  const text = device.persistent(() => device.zeros([1, length, width], "bf16"));
  const nothing = (): void => {};
  const init = recipe.model.init;
  const student = init === "random" ? null : init === "teacher" ? FROM_TEACHER : nothing;
  const trainer = new Trainer(device, recipe, { teacher: recipe.teacher && nothing, student }, { negative: text, empty: text });
  const shape = swappedShape(latentShape(recipe));
  const batch: HostBatch = {
    latents: zeros([train.batch, ...shape], "bf16"),
    embeds: zeros([train.batch, length, width], "bf16"),
  };
  const vae = o.vae ? o.vae.family.create(device, o.vae.config, "bf16") : null;

  const turns: Turn[] = [];
  const play = (name: string, body: () => void): void => {
    device.resetPeak();
    const { current } = device.memory();
    take();
    body();
    turns.push({ name, bytes: device.memory().peak - current, flop: take() });
  };
  const iterate = (at: Position): void => void trainer.iterate(Array.from({ length: train.accumulate }, () => batch), at);
  const kinds = trainer.method.kinds(recipe);
  // The first use of a grid makes its rotary tables, which stay.
  for (const step of new Set([0, ...kinds.map((k) => k.step)])) iterate({ step, updates: 0 });
  let flopPerStep = 0;
  for (const kind of kinds) {
    play(kind.name, () => iterate(kind));
    flopPerStep += kind.share * turns[turns.length - 1].flop;
  }
  if (vae) play("latents through the VAE", () => void roundTrip(vae, zeros([train.batch, ...latentShape(recipe)], "bf16")));
  if (train.sample_every > 0) {
    play("sample", () => {
      using _scope = device.scope();
      const plan = gridPlans(recipe).reduce((most, p) => (evaluationsOf(p) > evaluationsOf(most) ? p : most));
      const net = drawNet(trainer.sampler("ema"));
      drawNow(net, { plan, shape, noise: noiseKeys(0, 0, 1), condition: text, negative: text });
    });
  }
  const most = Math.max(...turns.map((t) => t.bytes));
  return {
    parameters: trainer.role("student").network.params.count,
    tokens: tokensOf(config, latentShape(recipe)),
    resident: residents(trainer, vae, device.memory().current),
    turns,
    flopPerStep,
    peakBytes: device.memory().current + most,
    checkpointBytes: checkpointBytes(trainer),
  };
}

/** Tensors that live as long as the run; what is left of `current` is rotary tables, text and rounding. */
function residents(trainer: Trainer, vae: Vae | null, current: number): Resident[] {
  const out: Resident[] = [];
  const add = (name: string, t: { dtype: string; bytes: number } | null | undefined): void => void (t && out.push({ name, dtype: t.dtype, bytes: t.bytes }));
  for (const [name, role] of trainer.roles) for (const { title, tensor } of role.buffers()) add(`${name} ${title}`, tensor);
  add("gradients", [...trainer.roles.values()].map((r) => r.network.params.grad).find((grad) => grad !== null));
  add("VAE weights", vae?.params.flat);
  out.push({ name: "rotary tables, text, rounding of blocks", dtype: "", bytes: current - out.reduce((n, r) => n + r.bytes, 0) });
  return out;
}
