import { RcmError } from "./error.ts";

/**
 * Counter-based random numbers (Philox4x32-10): a draw is a pure function of (seed, stream, index), so a resumed or
 * re-sharded run draws the same values. The device counterpart is rcm_randn.
 */

const M0 = 0xd2511f53;
const M1 = 0xcd9e8d57;
const W0 = 0x9e3779b9;
const W1 = 0xbb67ae85;

function mulHigh(a: number, b: number): number {
  const al = a & 0xffff;
  const ah = a >>> 16;
  const bl = b & 0xffff;
  const bh = b >>> 16;
  const low = al * bl;
  const mid = ah * bl + (low >>> 16);
  const cross = al * bh + (mid & 0xffff);
  return (ah * bh + Math.floor(mid / 65536) + Math.floor(cross / 65536)) >>> 0;
}

/** One block: four 32-bit words of a 128-bit counter under a 64-bit key. Source: Salmon et al. 2011. */
export function philox(
  counter: readonly [number, number, number, number],
  key: readonly [number, number],
): [number, number, number, number] {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < 10; round++) {
    const h0 = mulHigh(M0, c0);
    const h1 = mulHigh(M1, c2);
    const l0 = Math.imul(M0, c0) >>> 0;
    const l1 = Math.imul(M1, c2) >>> 0;
    c0 = (h1 ^ c1 ^ k0) >>> 0;
    c1 = l1;
    c2 = (h0 ^ c3 ^ k1) >>> 0;
    c3 = l0;
    k0 = (k0 + W0) >>> 0;
    k1 = (k1 + W1) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/** Low and high word. */
const split = (v: number): [number, number] => [v >>> 0, Math.floor(v / 0x100000000) >>> 0];

/** What randomness is used for. Each use has separate streams, so adding a use never changes the draws of another. */
const USES = {
  init: 1,
  data: 2,
  time: 3,
  noise: 4,
  simulateTime: 5,
  simulateNoise: 6,
  dmdTime: 7,
  dmdNoise: 8,
  dropout: 9,
  sample: 10,
  metric: 11,
} as const;
export type RandomUse = keyof typeof USES;

/** The key of a stream. Two keys that differ in any field give independent streams. */
export interface StreamKey {
  use: RandomUse;
  /** Training iteration. */
  step?: number;
  /** Index of the sample in the global batch, so that a draw does not depend on micro-batches or ranks. */
  sample?: number;
  /** Distinguishes several draws for the same use and sample. */
  index?: number;
}

/** Exclusive upper bound of each field. Times 32 uses their product is 2^53, the exact integers of a double. */
export const KEY_RANGE = { step: 2 ** 24, sample: 2 ** 18, index: 2 ** 6 } as const;
const USE_RANGE = 32;

/** Difference of the stream numbers of two consecutive samples of a batch. */
export const SAMPLE_STRIDE = USE_RANGE * KEY_RANGE.index;

/** Sequential draws from one (seed, stream); the state is the seed, the stream and the number of words drawn. */
export class Rng {
  private index = 0;
  private readonly key: [number, number];
  private readonly streamWords: [number, number];
  private block: [number, number, number, number] = [0, 0, 0, 0];

  constructor(
    readonly seed: number,
    readonly stream: number,
  ) {
    this.key = split(seed);
    this.streamWords = split(stream);
  }

  /** A 32-bit integer. */
  word(): number {
    const at = this.index++;
    if (at % 4 === 0) {
      const [low, high] = split(at / 4);
      this.block = philox([low, high, this.streamWords[0], this.streamWords[1]], this.key);
    }
    return this.block[at % 4];
  }

  /** Uniform in (0, 1), 32 bits. */
  uniform(): number {
    return (this.word() + 0.5) / 0x100000000;
  }

  /** Uniform integer in [0, n). */
  below(n: number): number {
    return Math.floor(this.uniform() * n);
  }

  /** Standard normal by Box-Muller; the second value of the pair is discarded, so every draw uses two words. */
  normal(): number {
    const radius = Math.sqrt(-2 * Math.log(this.uniform()));
    return radius * Math.cos(2 * Math.PI * this.uniform());
  }
}

function checkField(field: keyof typeof KEY_RANGE, value: number): void {
  if (Number.isSafeInteger(value) && value >= 0 && value < KEY_RANGE[field]) return;
  throw new RcmError("E_ARG", `the ${field} of a random key is out of range`, {
    op: "rng",
    want: `0 to ${KEY_RANGE[field] - 1}`,
    got: value,
  });
}

/** Packs a key into its stream number; different keys get different numbers. Throws: E_ARG outside KEY_RANGE. */
export function streamOf({ use, step = 0, sample = 0, index = 0 }: StreamKey): number {
  checkField("step", step);
  checkField("sample", sample);
  checkField("index", index);
  return (step * KEY_RANGE.sample + sample) * SAMPLE_STRIDE + index * USE_RANGE + USES[use];
}

/** The key of sample i outside training: i is split over the step and sample fields. */
export const setSampleKey = (i: number, index = 0): StreamKey => ({
  use: "sample",
  step: Math.floor(i / KEY_RANGE.sample),
  sample: i % KEY_RANGE.sample,
  index,
});
