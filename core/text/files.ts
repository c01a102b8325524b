import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { DType } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { writeFileAtomic } from "../io/atomic.ts";
import { writeTorch } from "../io/torch.ts";
import { Device } from "../tensor.ts";
import { padRows, PromptEncoder, type PromptEncoderOptions } from "./encoder.ts";
import { ENCODERS } from "../models/families.ts";
import type { EncoderLoadReport } from "../weights/encoder.ts";

/** Name under which the public code looks for the embedding of the negative prompt. */
const NEGATIVE_FILE = ENCODERS[Object.keys(ENCODERS)[0]].negativeFile;

export interface EncodeFilesOptions extends Omit<PromptEncoderOptions, "dtype"> {
  prompts: string[];
  negative: string | null;
  /** A .pt file for one text; else a folder. */
  out: string;
  dtype: DType;
  device: "auto" | "cpu" | "cuda";
  threads?: number;
  onPrompt?: (done: number, total: number) => void;
}

export interface EncodeFilesSummary {
  files: { path: string; prompt: string; tokens: number; truncated: boolean }[];
  shape: number[];
  dtype: DType;
  encoded: number;
  cached: number;
  /** Null when every prompt was cached. */
  load: EncoderLoadReport | null;
  seconds: number;
  peakBytes: number;
}

/**
 * Writes embeddings as the public data have them: torch files with one tensor [length, D], zeros past the tokens. In a folder,
 * `000000.embed.pt` and `000000.prompt.txt` for each prompt, and the negative prompt under the public name.
 */
export function encodeToFiles(o: EncodeFilesOptions): EncodeFilesSummary {
  const began = performance.now();
  const count = o.prompts.length + (o.negative === null ? 0 : 1);
  const single = /\.(pt|pth)$/.test(o.out);
  if (count === 0) throw new RcmError("E_ARG", "no prompt: give --prompt, --prompts or --negative", { op: "usage" });
  if (single && count > 1) throw new RcmError("E_ARG", `--out ${o.out} takes one prompt; name a folder for ${count}`, { op: "usage" });
  using device = Device.open({ device: o.device, threads: o.threads });
  let load: EncoderLoadReport | null = null;
  using encoder = PromptEncoder.open(device, { ...o, onLoad: (report) => (load = report) });
  const files: EncodeFilesSummary["files"] = [];
  let shape: number[] = [];
  const write = (prompt: string, path: string): void => {
    const { ids, full } = encoder.tokenize(prompt);
    const padded = padRows(encoder.rows([prompt])[0], encoder.length);
    shape = padded.shape;
    writeFileAtomic(path, writeTorch(padded));
    files.push({ path, prompt, tokens: ids.length, truncated: full > ids.length });
    o.onPrompt?.(files.length, count);
  };
  if (single) write(o.prompts[0] ?? (o.negative as string), o.out);
  else {
    mkdirSync(o.out, { recursive: true });
    o.prompts.forEach((prompt, i) => {
      const stem = join(o.out, String(i).padStart(6, "0"));
      write(prompt, `${stem}.embed.pt`);
      writeFileAtomic(`${stem}.prompt.txt`, prompt);
    });
    if (o.negative !== null) write(o.negative, join(o.out, NEGATIVE_FILE));
  }
  return { files, shape, dtype: o.dtype, encoded: encoder.counts.encoded, cached: encoder.counts.cached, load, seconds: (performance.now() - began) / 1000, peakBytes: device.memory().peak };
}
