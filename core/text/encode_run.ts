import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { DType } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { writeFileAtomic } from "../io/atomic.ts";
import { writeTorch } from "../io/torch.ts";
import { ENCODERS } from "../models/families.ts";
import { Device, type DeviceName } from "../tensor.ts";
import { padded, type Truncated } from "./embedder.ts";
import type { EncoderFiles, EncoderOptions } from "./encoder.ts";
import { openEncoder } from "./open.ts";
import type { EncoderLoadReport } from "../weights/encoder.ts";

/** File name by which the public code finds the embedding of the negative prompt. */
const NEGATIVE_FILE = ENCODERS[Object.keys(ENCODERS)[0]].negativeFile;

export interface EncodeOptions extends EncoderFiles, Omit<EncoderOptions, "width" | "onLoad"> {
  prompts: string[];
  negative: string | null;
  /** A .pt file for a single text, else a folder. */
  out: string;
  dtype: DType;
  device: DeviceName;
  threads?: number;
  onPrompt?: (done: number, total: number) => void;
}

export interface EncodeSummary {
  files: { path: string; prompt: string; tokens: number; truncated: boolean }[];
  shape: number[];
  dtype: DType;
  /** Prompts that were truncated to the requested length. */
  truncated: Truncated[];
  /** Identity of the embedder. */
  identity: string;
  encoded: number;
  cached: number;
  /** Null when every prompt was cached. */
  load: EncoderLoadReport | null;
  seconds: number;
  peakBytes: number;
}

/**
 * Writes embeddings in the format of the public data: torch files with one tensor [length, D], zero-padded. A folder
 * gets `000000.embed.pt` and `000000.prompt.txt` for each prompt, and the negative prompt under its public name.
 */
export async function encodeToFiles(o: EncodeOptions): Promise<EncodeSummary> {
  const began = performance.now();
  const count = o.prompts.length + (o.negative === null ? 0 : 1);
  const single = /\.(pt|pth)$/.test(o.out);
  if (count === 0) throw new RcmError("E_ARG", "no prompt: give --prompt, --prompts or --negative", { op: "usage" });
  if (single && count > 1) {
    throw new RcmError("E_ARG", `--out ${o.out} takes one prompt; name a folder for ${count}`, { op: "usage" });
  }
  using device = Device.open({ device: o.device, threads: o.threads });
  let load: EncoderLoadReport | null = null;
  const truncated: Truncated[] = [];
  const onTruncated = (t: Truncated): void => {
    truncated.push(t);
    o.onTruncated?.(t);
  };
  using embedder = openEncoder(device, o, { ...o, onLoad: (report) => (load = report), onTruncated });
  const files: EncodeSummary["files"] = [];
  let shape: number[] = [];
  const write = async (prompt: string, path: string): Promise<void> => {
    const [text] = await embedder.embed([prompt]);
    const whole = padded(text, embedder.length);
    shape = whole.shape;
    writeFileAtomic(path, writeTorch(whole));
    files.push({ path, prompt, tokens: text.shape[0], truncated: truncated.some((t) => t.prompt === prompt) });
    o.onPrompt?.(files.length, count);
  };
  if (single) await write(o.prompts[0] ?? (o.negative as string), o.out);
  else {
    mkdirSync(o.out, { recursive: true });
    for (const [i, prompt] of o.prompts.entries()) {
      const stem = join(o.out, String(i).padStart(6, "0"));
      await write(prompt, `${stem}.embed.pt`);
      writeFileAtomic(`${stem}.prompt.txt`, prompt);
    }
    if (o.negative !== null) await write(o.negative, join(o.out, NEGATIVE_FILE));
  }
  return {
    files, shape, dtype: o.dtype, truncated, identity: embedder.identity, ...embedder.counts, load,
    seconds: (performance.now() - began) / 1000, peakBytes: device.memory().peak,
  };
}
