import { readdirSync, statSync } from "node:fs";
import { basename, extname, join } from "node:path";
import { dtypeBytes, numel, type HostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { readSafetensors } from "../io/safetensors.ts";
import { readAt, withFile } from "../io/tar.ts";
import { isHostTensor, readTorch, readTorchTensor, readTorchTensors } from "../io/torch.ts";
import { fileKey, indexShard, KINDS, listShards } from "../io/webdataset.ts";
import { trimmed, type Embedder, type TextShape } from "./embedder.ts";
import { contentIdentity } from "./identity.ts";

/** Precomputed embeddings by index. */
export interface StoredTexts {
  readonly path: string;
  readonly count: number;
  /** Shapes: [tokens, width]. Throws: E_IO naming a file that is missing, E_FORMAT. */
  read(index: number): HostTensor;
}

/** Splits one tensor into text embeddings. Shapes: [M, D], or [n, M, D] -> n of [M, D]. Throws: E_FORMAT. */
function split({ dtype, shape, data }: HostTensor, source: string): HostTensor[] {
  const [n, M, D] = shape.length === 2 ? [1, ...shape] : shape;
  if (shape.length < 2 || shape.length > 3 || numel(shape) === 0) {
    const want = "[tokens, width] or [n, tokens, width]";
    throw new RcmError("E_FORMAT", `${source} is no text embedding`, { op: "embeds", want, got: shape });
  }
  const each = numel([M, D]) * dtypeBytes(dtype);
  return Array.from({ length: n }, (_, i) => ({ dtype, shape: [M, D], data: data.subarray(i * each, (i + 1) * each) }));
}

function expectOne(got: number, source: string): void {
  if (got !== 1) throw new RcmError("E_FORMAT", `${source} holds more than one text`, { op: "embeds", want: 1, got });
}

function single(t: HostTensor, source: string): HostTensor {
  const texts = split(t, source);
  expectOne(texts.length, source);
  return texts[0];
}

/**
 * Reads the embeddings of a .pt, .pth or .safetensors file with one tensor.
 * Shapes: n of [M, D]. Throws: E_IO, E_FORMAT.
 */
export function readEmbeddings(path: string): HostTensor[] {
  let found: HostTensor[];
  if (extname(path) === ".safetensors") found = [...readSafetensors(path).tensors.values()];
  else {
    const value = readTorch(path);
    found = isHostTensor(value) ? [value] : [...readTorchTensors(path).values()];
  }
  if (found.length !== 1) {
    throw new RcmError("E_FORMAT", `${path} does not hold one tensor`, { op: "embeds", got: found.length });
  }
  return split(found[0], path);
}

function openFolder(path: string): StoredTexts {
  let names: string[];
  try {
    names = readdirSync(path);
  } catch (cause) {
    throw new RcmError("E_IO", `cannot list ${path}: ${(cause as Error).message}`, { op: "embeds", cause });
  }
  const files = new Set(names.filter((n) => n.endsWith(`.${KINDS[1]}`)));
  const shards = names.some((n) => /^shard[_-]\d+\.tar$/.test(n)) ? listShards(path) : [];
  const entries = new Map(shards.flatMap(indexShard).map((e) => [e.key, e]));
  const count = new Set([...[...files].map((n) => n.slice(0, -KINDS[1].length - 1)), ...entries.keys()]).size;
  if (count === 0) {
    throw new RcmError("E_FORMAT", `${path} holds neither 000000000.embed.pt files nor shards`, { op: "embeds" });
  }
  return {
    path,
    count,
    read(index) {
      const key = fileKey(String(index));
      const name = `${key}.${KINDS[1]}`;
      // `rcm text encode` writes names of six digits.
      const file = [name, `${String(index).padStart(6, "0")}.${KINDS[1]}`].find((n) => files.has(n));
      if (file !== undefined) return single(readTorchTensor(join(path, file)), join(path, file));
      const entry = entries.get(key);
      if (!entry) {
        throw new RcmError("E_IO", `${path} has no embedding of prompt ${index} (${name})`, { op: "embeds" });
      }
      const { start, size } = entry[KINDS[1]];
      const where = `${entry.path}: ${name}`;
      const bytes = withFile(entry.path, (fd) => readAt(fd, entry.path, start, size));
      return single(readTorchTensor(bytes, where), where);
    },
  };
}

/** Opens the embeddings of a file, of a folder of `{index:09d}.embed.pt` files, or of shards with such keys. */
export function openStored(path: string): StoredTexts {
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) return openFolder(path);
  const texts = readEmbeddings(path);
  return {
    path,
    count: texts.length,
    read(index) {
      const text = texts[index];
      if (!text) throw new RcmError("E_IO", `${path} has no embedding of prompt ${index}`, { op: "embeds" });
      return text;
    },
  };
}

/** Looks prompts up in precomputed embeddings; of duplicate prompts the first counts. */
export class StoredEmbedder implements Embedder {
  readonly width: number;
  readonly length: number;
  private readonly indices = new Map<string, number>();
  private hash: string | null = null;

  /** `prompts`: prompts of the stored texts, in order; by default names derived from the file. */
  constructor(
    readonly texts: StoredTexts,
    { width, length }: TextShape,
    readonly prompts: readonly string[] = namesOf(texts),
  ) {
    this.width = width;
    this.length = length;
    prompts.forEach((prompt, i) => this.indices.has(prompt) || this.indices.set(prompt, i));
  }

  get identity(): string {
    this.hash ??= contentIdentity(this.texts.path);
    return JSON.stringify({ stored: this.hash, width: this.width, length: this.length });
  }

  /** Shapes: [used rows, width] each. Throws: E_ARG for a prompt without embedding; as `read`. */
  async embed(prompts: readonly string[]): Promise<HostTensor[]> {
    return prompts.map((prompt) => {
      const index = this.indices.get(prompt);
      if (index === undefined) {
        throw new RcmError("E_ARG", `${this.texts.path} has no embedding of a prompt`, { op: "embeds", got: prompt });
      }
      return this.read(index);
    });
  }

  /** The embedding at an index. Shapes: [used rows, width]. Throws: E_SHAPE naming the source, E_IO, E_FORMAT. */
  read(index: number): HostTensor {
    const text = this.texts.read(index);
    const [rows, width] = text.shape;
    if (width !== this.width || rows > this.length) {
      const message = `${this.texts.path} holds no text embedding of this model (prompt ${index})`;
      const want = `[1 to ${this.length}, ${this.width}]`;
      throw new RcmError("E_SHAPE", message, { op: "embeds", want, got: text.shape });
    }
    return trimmed(text);
  }

  [Symbol.dispose](): void {}
}

/** Default names of stored texts without prompts. */
function namesOf({ path, count }: StoredTexts): string[] {
  return Array.from({ length: count }, (_, i) => `${basename(path)}#${i}`);
}

/**
 * Reads the single embedding of a file.
 * Shapes: [used rows, width]. Throws: E_FORMAT when there are several, E_SHAPE, E_IO.
 */
export function readStoredText(path: string, shape: TextShape): HostTensor {
  const texts = openStored(path);
  expectOne(texts.count, path);
  return new StoredEmbedder(texts, shape).read(0);
}
