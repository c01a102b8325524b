import type { DType } from "../dtype.ts";
import { GraphMemory } from "../stream.ts";
import type { Device, Tensor } from "../tensor.ts";

/** One measured line; every benchmark gives rows of this shape. */
export interface BenchRow {
  name: string;
  shape: string;
  /** Median milliseconds of one call. */
  ms: number;
  tflops?: number;
  gbs?: number;
  /** What the rate is compared with, in its unit, and the rate over it. */
  ceiling?: number;
  ratio?: number;
  /** Most device bytes in use at once while it ran. */
  bytesPeak?: number;
  /** Relative L2 errors, where accuracy is what is measured. */
  valueError?: number;
  tangentError?: number;
}

export interface BenchReport {
  device: string;
  what: string;
  rows: BenchRow[];
}

export interface TimeOptions {
  /** Samples whose median is taken. */
  repeats: number;
  /** Shortest sample; short calls are repeated until a sample is this long. */
  sampleMs: number;
  /** Sampling stops once the samples took this long together, after at least three. */
  budgetMs: number;
}

/**
 * What a benchmark of device work is given: where to run, how long to time, and the rate to compare with (null: none).
 */
export interface BenchSetting {
  device: Device;
  timing: TimeOptions;
  /** TFLOP/s or GB/s. */
  ceiling: number | null;
}

export const TIMING: TimeOptions = { repeats: 20, sampleMs: 20, budgetMs: 20_000 };

export const median = (v: readonly number[]): number => [...v].sort((a, b) => a - b)[Math.floor(v.length / 2)];

/** ||a - b|| / ||b||. */
export function relativeL2(a: Float64Array, b: Float64Array): number {
  let [difference, size] = [0, 0];
  for (let i = 0; i < b.length; i++) {
    difference += (a[i] - b[i]) ** 2;
    size += b[i] ** 2;
  }
  return Math.sqrt(difference / size);
}

/** Most calls queued in one sample. */
const MOST = 8192;

/**
 * Median milliseconds of a call: wall-clock time of N queued calls followed by one device synchronization. N grows
 * until a sample is long enough; those samples are the warm-up. Allocations of a call are freed after it.
 */
export function timeCalls(device: Device, call: () => void, o: TimeOptions): number {
  const sample = (n: number): number => {
    const began = performance.now();
    for (let i = 0; i < n; i++) {
      using _scope = device.scope();
      call();
    }
    device.sync();
    return performance.now() - began;
  };
  sample(1);
  let n = 1;
  let took = sample(n);
  while (took < o.sampleMs && n < MOST) {
    n = Math.min(MOST, Math.max(2 * n, Math.ceil((n * o.sampleMs) / Math.max(took, 1e-3))));
    took = sample(n);
  }
  const samples: number[] = [];
  let spent = 0;
  while (samples.length < o.repeats && (samples.length < 3 || spent < o.budgetMs)) {
    const ms = sample(n);
    spent += ms;
    samples.push(ms / n);
  }
  return median(samples);
}

/** Calls captured in one graph. */
const RECORDED = 64;

/**
 * As timeCalls, for calls that are shorter than their launch: many are captured in a graph and launched as one, so that
 * device time is measured and not launch latency. On a CPU it is timeCalls.
 */
export function timeRecorded(device: Device, call: () => void, o: TimeOptions): number {
  if (device.backend.kind === "cpu") return timeCalls(device, call, o);
  const once = (): void => {
    using _scope = device.scope();
    call();
  };
  once();
  const memory = new GraphMemory(device);
  const graph = memory.record(() => {
    for (let i = 0; i < RECORDED; i++) once();
  });
  const ms = timeCalls(device, () => graph.launch(), o);
  graph.free();
  memory.free();
  return ms / RECORDED;
}

export const rate = (work: { flop?: number; bytes?: number }, ms: number): Pick<BenchRow, "tflops" | "gbs"> => ({
  ...(work.flop === undefined ? {} : { tflops: work.flop / ms / 1e9 }),
  ...(work.bytes === undefined ? {} : { gbs: work.bytes / ms / 1e6 }),
});

/** The row with its rate as a fraction of a ceiling in the same unit. */
export function compared(row: BenchRow, ceiling: number | null): BenchRow {
  const got = row.tflops ?? row.gbs;
  return ceiling === null || got === undefined ? row : { ...row, ceiling, ratio: got / ceiling };
}

/** Standard normal values, drawn on the device; never zeros. */
export const noise = (device: Device, shape: readonly number[], dtype: DType, stream: number): Tensor =>
  fillNoise(device.empty(shape, dtype), stream, 1);

/** Fills a tensor with normal values around a mean, a piece at a time so that no second copy of it is needed. */
export function fillNoise(t: Tensor, stream: number, std: number, mean = 0): Tensor {
  const { device } = t;
  const piece = 1 << 24;
  for (let at = 0; at < t.numel; at += piece) {
    using _scope = device.scope();
    const part = t.window(at, [Math.min(piece, t.numel - at)]);
    const drawn = device.empty(part.shape, t.dtype).setRandn(1, stream, at);
    part.fill(mean).axpy(drawn, std);
  }
  return t;
}
