import { openblasRate } from "../../ffi/blas.ts";
import { hostTensor, numel, type HostTensor } from "../dtype.ts";
import type { LoadedRecipe } from "../recipe/load.ts";
import { swappedShape } from "../data/latents.ts";
import { latentShape } from "../recipe/schema.ts";
import { tokensOf } from "../models/family.ts";
import { Rng } from "../rng.ts";
import { Device, type DeviceName } from "../tensor.ts";
import { createNetwork, recipeNet } from "../networks/build.ts";
import type { HostBatch } from "../train/batch.ts";
import type { RoleName } from "../train/role.ts";
import { Trainer } from "../train/trainer.ts";
import { median } from "./time.ts";
import { counted } from "../../ffi/counting.ts";

export interface StepBench {
  recipe: string;
  batch: number;
  tokens: number;
  device: string;
  isa: string;
  threads: number;
  blas: string;
  /** Median milliseconds and counted matmul + attention FLOP of an iteration, by the role that it trains. */
  turns: Record<string, StepRow>;
  /** FLOP/s of a whole cycle (one student iteration and its critic iterations). */
  rate: number;
  /** FLOP/s of OpenBLAS on 2048^3 with the same number of threads, measured in the same run; null without OpenBLAS. */
  openblas: number | null;
  ratio: number | null;
  /** Milliseconds of an average iteration, and of its captured graphs on the GPU; null when nothing is captured. */
  recorded: { iterationMs: number; gpuMs: number } | null;
  peakBytes: number;
}

export interface StepRow {
  ms: number;
  gflop: number;
  gflops: number;
}

function randomHost(shape: number[], rng: Rng): HostTensor {
  return hostTensor("f32", shape, Float64Array.from({ length: numel(shape) }, () => rng.normal()));
}

/** Times training iterations of a recipe on random weights and data. */
export function benchStep(
  { recipe: r }: LoadedRecipe,
  o: { device: DeviceName; threads: number; repeats: number; onIteration?: (done: number, total: number) => void },
): StepBench {
  const opened = Device.open({ device: o.device, threads: o.threads });
  const { backend, take } = counted(opened.backend);
  using device = new Device(backend);
  const { config, text } = recipeNet(r);
  const rng = new Rng(1, 7);
  const source = createNetwork(device, r, { trainable: false, secondTime: false });
  source.params.init(1);
  const weights = new Map(source.params.entries());
  const empty = device.persistent(() => device.zeros([1, text.length, text.width], "f32"));
  const trainer = new Trainer(
    device,
    r,
    { teacher: r.teacher ? weights : null, student: weights },
    { negative: empty, empty },
  );
  const { method } = trainer;
  // The long phase of a run, with every objective on, begins with the first kind of iteration that counts.
  const start = Math.min(...method.kinds(r).filter((kind) => kind.share > 0).map((kind) => kind.step));
  const batch: HostBatch = {
    latents: randomHost([r.train.batch, ...swappedShape(latentShape(r))], rng),
    embeds: randomHost([r.train.batch, text.length, text.width], rng),
  };
  const rows = new Map<RoleName, [ms: number, flop: number][]>();
  const freq = r.objective.dmd?.student_every ?? 1;
  const cycles = o.repeats + 2;
  for (let i = 0; i < cycles * freq; i++) {
    if (i === 2 * freq) trainer.recordedMs();
    take();
    const t = performance.now();
    const step = start + i;
    const at = { step, updates: method.updates(r, step, method.turn(r, step)) };
    const { kind } = trainer.iterate(Array.from({ length: r.train.accumulate }, () => batch), at);
    device.sync();
    if (i >= 2 * freq) rows.set(kind, [...(rows.get(kind) ?? []), [performance.now() - t, take()]]);
    o.onIteration?.(i + 1, cycles * freq);
  }
  const row = (v: [number, number][]): StepRow => {
    const ms = median(v.map(([m]) => m));
    // DMD's simulation has 1..N steps in turn: time and FLOP are averaged over the same iterations.
    const flop = v.reduce((n, [, f]) => n + f, 0) / v.length;
    const mean = v.reduce((n, [m]) => n + m, 0) / v.length;
    return { ms, gflop: flop / 1e9, gflops: flop / 1e6 / mean };
  };
  const all = [...rows.values()].flat();
  const gpuMs = trainer.recordedMs();
  const rate = all.reduce((n, [, f]) => n + f, 0) / (all.reduce((n, [m]) => n + m, 0) / 1000);
  const { info, kind } = device.backend;
  const openblas = kind === "cpu" ? openblasRate(2048, info.threads) : null;
  return {
    recipe: r.name,
    batch: r.train.batch,
    tokens: tokensOf(config, latentShape(r)),
    device: info.device,
    isa: info.isa,
    threads: info.threads,
    blas: info.blas,
    turns: Object.fromEntries([...rows].map(([role, v]) => [role, row(v)])),
    rate,
    openblas,
    recorded:
      gpuMs === null
        ? null
        : { iterationMs: all.reduce((n, [ms]) => n + ms, 0) / all.length, gpuMs: gpuMs / all.length },
    ratio: openblas === null ? null : rate / openblas,
    peakBytes: device.memory().peak,
  };
}
