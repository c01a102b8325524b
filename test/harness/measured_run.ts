import { counted } from "../../ffi/counting.ts";
import { hostTensor, numel, type HostTensor } from "../../core/dtype.ts";
import { latentShape, type Recipe } from "../../core/recipe/schema.ts";
import { swappedShape } from "../../core/data/latents.ts";
import { Rng } from "../../core/rng.ts";
import { Device } from "../../core/tensor.ts";
import { FROM_TEACHER, recipeNet } from "../../core/networks/build.ts";
import type { HostBatch } from "../../core/train/batch.ts";
import { Trainer } from "../../core/train/trainer.ts";

const random = (shape: number[], rng: Rng): HostTensor =>
  hostTensor(
    "bf16", shape, Float64Array.from({ length: numel(shape) }, () => rng.normal()),
  );

/** A trainer on random weights and a batch for it. */
export function setUp(device: Device, r: Recipe): { trainer: Trainer; batch: HostBatch } {
  const { text: { length, width } } = recipeNet(r);
  const rng = new Rng(4, 4);
  const text = device.persistent(() => device.zeros([1, length, width], "bf16"));
  const teacher = (params: { init(seed: number): void }): void => params.init(2);
  const trainer = new Trainer(
    device,
    r,
    { teacher: r.teacher && teacher, student: r.teacher ? FROM_TEACHER : null },
    { negative: text, empty: text },
  );
  return {
    trainer,
    batch: {
      latents: random([r.train.batch, ...swappedShape(latentShape(r))], rng),
      embeds: random([r.train.batch, length, width], rng),
    },
  };
}

/**
 * Peak memory and work of real iterations: one student iteration of the warm-up, one after it, one of the critic, each
 * at its dearest.
 */
export function measure(r: Recipe, kind: "cpu" | "cuda" = "cpu"): { peak: number; flop: Record<string, number> } {
  const opened = Device.open({ device: kind, threads: 2 });
  const { backend, take } = counted(opened.backend, true);
  using device = new Device(backend);
  device.trim();
  device.resetPeak();
  const before = device.memory().current;
  const { trainer, batch } = setUp(device, r);
  const flop: Record<string, number> = {};
  const n = r.objective.dmd?.simulation_steps ?? 1;
  const longest = (name: string): boolean => !name.includes("simulation") || name.includes(`, ${n} simulation`);
  const kinds = trainer.method.kinds(r).filter(({ name }) => longest(name));
  for (const { name, step } of kinds) {
    take();
    trainer.iterate(Array.from({ length: r.train.accumulate }, () => batch), { step, updates: n - 1 });
    flop[name] = take();
  }
  return { peak: device.memory().peak - before, flop };
}
