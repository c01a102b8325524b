import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { RcmError } from "../error.ts";
import { writeFileAtomic } from "./atomic.ts";
import type { Shard } from "./shard.ts";

/** Settings that all samples of a folder share. */
export type Settings = Record<string, unknown>;

export interface ManifestEntry {
  index: number;
  prompt: string;
  /** Files inside the folder. */
  file: string;
  sheet: string | null;
  latents: string | null;
}

const MANIFEST = /^samples(?:-\d+-of-\d+)?\.jsonl$/;

interface ManifestFile {
  settings: Settings;
  entries: ManifestEntry[];
}

function readManifest(path: string): ManifestFile {
  try {
    const [head, ...lines] = readFileSync(path, "utf8")
      .split("\n")
      .filter((l) => l !== "")
      .map((l) => JSON.parse(l));
    if (
      typeof head?.settings !== "object" ||
      lines.some((l) => !Number.isSafeInteger(l.index) || typeof l.prompt !== "string" || typeof l.file !== "string")
    )
      throw new Error("not a manifest");
    return { settings: head.settings, entries: lines };
  } catch (cause) {
    throw new RcmError("E_FORMAT", `${path} is no manifest of samples: ${(cause as Error).message}`, {
      op: "sample",
      cause,
    });
  }
}

const differences = (a: Settings, b: Settings): string[] =>
  [...new Set([...Object.keys(a), ...Object.keys(b)])]
    .sort()
    .filter((k) => JSON.stringify(a[k]) !== JSON.stringify(b[k]));

/** What one job writes into the folder. */
export interface ManifestJob {
  shard: Shard;
  settings: Settings;
  items: readonly { index: number; prompt: string }[];
  overwrite: boolean;
}

/**
 * `samples.jsonl` of an output folder: the settings, then a line for each finished sample; replaced atomically after
 * each. Every shard writes a separate file and reads all of them, so a folder may be finished with another number of
 * shards.
 */
export class Manifest {
  private readonly finished = new Map<number, ManifestEntry>();
  private readonly written: ManifestEntry[] = [];

  private constructor(
    readonly folder: string,
    readonly file: string,
    readonly settings: Settings,
  ) {}

  /** Throws: E_STATE naming what differs when the folder holds samples of other settings, unless `overwrite`. */
  static open(
    folder: string,
    { shard, settings, items, overwrite }: ManifestJob,
  ): Manifest {
    const file = shard.count === 1 ? "samples.jsonl" : `samples-${shard.index}-of-${shard.count}.jsonl`;
    const plain = JSON.parse(JSON.stringify(settings)) as Settings;
    const manifest = new Manifest(folder, file, plain);
    const found = existsSync(folder) ? readdirSync(folder).filter((f) => MANIFEST.test(f)).sort() : [];
    if (overwrite) {
      for (const f of shard.count === 1 ? found : found.filter((one) => one === file)) rmSync(join(folder, f));
      return manifest;
    }
    const prompts = new Map(items.map((item) => [item.index, item.prompt]));
    for (const f of found) {
      const read = readManifest(join(folder, f));
      const keys = differences(read.settings, plain);
      if (keys.length > 0) {
        const list = keys
          .slice(0, 5)
          .map((k) => `${k}: there ${JSON.stringify(read.settings[k])}, here ${JSON.stringify(plain[k])}`);
        throw new RcmError(
          "E_STATE",
          `${join(folder, f)} describes samples of other settings (${list.join("; ")}); ` +
            "name another folder or --overwrite",
          { op: "sample" },
        );
      }
      for (const entry of read.entries) {
        const prompt = prompts.get(entry.index);
        if (prompt !== undefined && prompt !== entry.prompt) {
          throw new RcmError(
            "E_STATE",
            `sample ${entry.index} in ${folder} is of another prompt; name another folder or --overwrite`,
            { op: "sample", want: prompt, got: entry.prompt },
          );
        }
        if (existsSync(join(folder, entry.file))) manifest.finished.set(entry.index, entry);
        if (f === file) manifest.written.push(entry);
      }
    }
    return manifest;
  }

  entryOf(item: { index: number }): ManifestEntry | null {
    return this.finished.get(item.index) ?? null;
  }

  add(entry: ManifestEntry): void {
    const at = this.written.findIndex((e) => e.index === entry.index);
    if (at >= 0) this.written[at] = entry;
    else this.written.push(entry);
    this.written.sort((a, b) => a.index - b.index);
    this.finished.set(entry.index, entry);
    const lines = [{ settings: this.settings }, ...this.written].map((l) => `${JSON.stringify(l)}\n`);
    writeFileAtomic(join(this.folder, this.file), lines.join(""));
  }
}
