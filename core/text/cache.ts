import { existsSync, mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import type { HostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { readSafetensors, writeSafetensors } from "../io/safetensors.ts";
import { eachOnce, type Embedder } from "./embedder.ts";
import type { NetworkEmbedder } from "./encoder.ts";
import { place, sha256 } from "./identity.ts";

/** Prompt embeddings on disk: one file each, named by the hash of everything that it depends on. */
export class PromptCache {
  constructor(readonly folder: string) {
    try {
      mkdirSync(folder, { recursive: true });
    } catch (cause) {
      const message = `cannot make ${folder}: ${(cause as Error).message}`;
      throw new RcmError("E_IO", message, { op: "prompt cache", cause });
    }
  }

  key(parts: Record<string, string | number>): string {
    return sha256(JSON.stringify(Object.entries(parts).sort(([a], [b]) => (a < b ? -1 : 1))));
  }

  private path(key: string): string {
    return join(this.folder, key.slice(0, 2), `${key}.safetensors`);
  }

  /** The rows of an entry; null if it is missing or damaged. Shapes: [n, width]. */
  read(key: string): HostTensor | null {
    const path = this.path(key);
    if (!existsSync(path)) return null;
    try {
      const { tensors, metadata } = readSafetensors(path);
      const t = tensors.get("embed");
      return t && metadata.key === key && t.shape.length === 2 ? t : null;
    } catch (error) {
      if (error instanceof RcmError) return null;
      throw error;
    }
  }

  write(key: string, rows: HostTensor, metadata: Record<string, string>): void {
    const path = this.path(key);
    mkdirSync(dirname(path), { recursive: true });
    const all = { format: "rcm-prompt", key, ...metadata };
    place(path, (temporary) => writeSafetensors(temporary, [["embed", rows]], all));
  }
}

/** A text encoder with a disk cache: its weights are loaded only for the first prompt that is not cached. */
export class CachedEmbedder implements Embedder {
  constructor(
    readonly inner: NetworkEmbedder,
    private readonly cache: PromptCache,
  ) {}

  get width(): number {
    return this.inner.width;
  }

  get length(): number {
    return this.inner.length;
  }

  get identity(): string {
    return this.inner.identity;
  }

  get counts(): NetworkEmbedder["counts"] {
    return this.inner.counts;
  }

  /** Shapes: [n, width] each. Throws: as NetworkEmbedder; E_IO when an entry cannot be written. */
  async embed(prompts: readonly string[]): Promise<HostTensor[]> {
    return eachOnce(prompts, (prompt) => this.rowsOf(prompt));
  }

  private rowsOf(prompt: string): HostTensor {
    const { inner, cache } = this;
    const t = inner.tokenize(prompt);
    const key = cache.key({ ...inner.parts, prompt: t.clean });
    const known = cache.read(key);
    if (known && known.dtype === inner.dtype && inner.fits(known, t)) {
      inner.counts.cached++;
      return known;
    }
    const made = inner.run(t);
    cache.write(key, made, { prompt: t.clean, tokens: String(t.ids.length) });
    return made;
  }

  [Symbol.dispose](): void {
    this.inner[Symbol.dispose]();
  }
}
