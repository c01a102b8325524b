import { hostValues, numel, type HostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { withFile } from "../io/tar.ts";
import { decode, indexShard, type Entry, type Sample } from "../io/webdataset.ts";
import { usedRows } from "../text/embedder.ts";
import { shardPaths } from "./merge.ts";

export interface InspectOptions {
  inputs: readonly string[];
  /** Number of evenly spread samples for mean and standard deviation; 0: all. */
  statistics: number;
  /** Number of evenly spread samples for a contact sheet; 0: none. */
  sheet: number;
  onSample?: (done: number, total: number) => void;
}

export interface ChannelStatistics {
  mean: number;
  std: number;
}

export interface InspectReport {
  shards: number;
  samples: number;
  bytes: number;
  /** Shape and dtype of latents and embeddings with their counts; more than one of a kind is a problem. */
  latents: Record<string, number>;
  embeds: Record<string, number>;
  channels: ChannelStatistics[];
  statisticsSamples: number;
  promptLength: { least: number; mean: number; most: number };
  /** Rows of embeddings that are not zero: the tokens of the prompts. */
  embedTokens: { least: number; mean: number; most: number };
  /** Repeats of keys and of prompts. */
  duplicateKeys: number;
  duplicatePrompts: number;
  /** Samples whose latent or embedding holds a value that is not finite. */
  nonfinite: number;
  /** What is wrong: damaged shards and members, mixed shapes, values that are not finite. */
  problems: string[];
  ok: boolean;
}

const MOST_PROBLEMS = 20;

/** Whether any element is NaN or infinite; for bf16 and f16 decided from the exponent bits. */
export function hasNonfinite(t: HostTensor): boolean {
  const mask = t.dtype === "bf16" ? 0x7f80 : t.dtype === "f16" ? 0x7c00 : 0;
  if (mask === 0) return hostValues(t).some((v) => !Number.isFinite(v));
  const bytes = t.data.byteOffset % 2 === 0 ? t.data : t.data.slice();
  const bits = new Uint16Array(bytes.buffer, bytes.byteOffset, numel(t.shape));
  for (let i = 0; i < bits.length; i++) if ((bits[i] & mask) === mask) return true;
  return false;
}

class Spread {
  private n = 0;
  private sum = 0;
  private least = Number.POSITIVE_INFINITY;
  private most = Number.NEGATIVE_INFINITY;
  add(v: number): void {
    this.n++;
    this.sum += v;
    this.least = Math.min(this.least, v);
    this.most = Math.max(this.most, v);
  }
  get value(): { least: number; mean: number; most: number } {
    return this.n === 0
      ? { least: 0, mean: 0, most: 0 }
      : { least: this.least, mean: this.sum / this.n, most: this.most };
  }
}

/** Sums per channel of latents [C, T, Y, X] of one shape. */
class Channels {
  private readonly sums: { n: number; sum: number; squares: number }[] = [];
  add(latent: HostTensor): void {
    const values = hostValues(latent);
    const C = latent.shape.at(-4) ?? 1;
    const each = values.length / C;
    for (let c = 0; c < C; c++) {
      const s = (this.sums[c] ??= { n: 0, sum: 0, squares: 0 });
      for (let i = c * each; i < (c + 1) * each; i++) {
        s.sum += values[i];
        s.squares += values[i] * values[i];
      }
      s.n += each;
    }
  }
  get value(): ChannelStatistics[] {
    return this.sums.map(({ n, sum, squares }) => ({
      mean: sum / n,
      std: Math.sqrt(Math.max(0, squares / n - (sum / n) ** 2)),
    }));
  }
}

const evenly = (total: number, wanted: number): Set<number> =>
  new Set(Array.from({ length: Math.min(total, wanted) }, (_, i) => Math.floor((i * total) / Math.min(total, wanted))));

const label = (t: HostTensor): string => `[${t.shape.join(", ")}] ${t.dtype}`;

/** Reads every member of every shard once, holding one sample in memory; damage is reported. Throws: E_IO. */
export function inspectShards(o: InspectOptions): { report: InspectReport; sheet: Sample[] } {
  const paths = shardPaths(o.inputs);
  const problems: string[] = [];
  const problem = (text: string): void => {
    if (problems.length < MOST_PROBLEMS && !problems.includes(text)) problems.push(text);
    else if (problems.length === MOST_PROBLEMS) problems.push("and more");
  };
  let bytes = 0;
  const entries: Entry[] = paths.flatMap((path) => {
    bytes += withFile(path, (_fd, size) => size);
    try {
      return indexShard(path);
    } catch (error) {
      if (!(error instanceof RcmError && error.code === "E_FORMAT")) throw error;
      problem(error.message);
      return [];
    }
  });
  const counted = o.statistics === 0 ? evenly(entries.length, entries.length) : evenly(entries.length, o.statistics);
  const shown = evenly(entries.length, o.sheet);
  const sheet: Sample[] = [];
  const [latents, embeds]: Record<string, number>[] = [{}, {}];
  const [keys, prompts] = [new Map<string, number>(), new Map<string, number>()];
  const [lengths, tokens, channels] = [new Spread(), new Spread(), new Channels()];
  let [nonfinite, statisticsSamples] = [0, 0];
  entries.forEach((entry, i) => {
    let sample: Sample;
    try {
      sample = withFile(entry.path, (fd) => decode(fd, entry));
    } catch (error) {
      if (!(error instanceof RcmError && error.code === "E_FORMAT")) throw error;
      return problem(error.message);
    }
    const { key, latent, embed, prompt } = sample;
    keys.set(key, (keys.get(key) ?? 0) + 1);
    prompts.set(prompt, (prompts.get(prompt) ?? 0) + 1);
    latents[label(latent)] = (latents[label(latent)] ?? 0) + 1;
    embeds[label(embed)] = (embeds[label(embed)] ?? 0) + 1;
    lengths.add(prompt.length);
    tokens.add(usedRows(embed));
    if (hasNonfinite(latent) || hasNonfinite(embed)) {
      nonfinite++;
      problem(`${entry.path}: sample ${key} holds values that are not finite`);
    } else if (counted.has(i)) {
      channels.add(latent);
      statisticsSamples++;
    }
    if (shown.has(i)) sheet.push(sample);
    o.onSample?.(i + 1, entries.length);
  });
  const doubled = (m: Map<string, number>): number => [...m.values()].reduce((n, count) => n + count - 1, 0);
  if (Object.keys(latents).length > 1) problem(`latents differ in shape or dtype: ${Object.keys(latents).join("; ")}`);
  if (Object.keys(embeds).length > 1) problem(`embeddings differ in shape or dtype: ${Object.keys(embeds).join("; ")}`);
  if (doubled(keys) > 0) problem(`${doubled(keys)} keys come twice`);
  const report: InspectReport = {
    shards: paths.length,
    samples: entries.length,
    bytes,
    latents,
    embeds,
    channels: channels.value,
    statisticsSamples,
    promptLength: lengths.value,
    embedTokens: tokens.value,
    duplicateKeys: doubled(keys),
    duplicatePrompts: doubled(prompts),
    nonfinite,
    problems,
    ok: problems.length === 0,
  };
  return { report, sheet };
}
