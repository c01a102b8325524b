import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { hostTensor, hostValues, numel, type HostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { readTorchTensor } from "../io/torch.ts";
import { fileKey, indexShard, KINDS, listShards, type Entry } from "../io/webdataset.ts";
import { readAt, withFile } from "../io/tar.ts";

/** The prompts of a file, one a line; blank lines are left out. Throws: E_IO, E_FORMAT when there are none or one is not UTF-8. */
export function readPrompts(path: string): string[] {
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(path);
  } catch (cause) {
    throw new RcmError("E_IO", `cannot read ${path}: ${(cause as Error).message}`, { op: "prompts", cause });
  }
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new RcmError("E_FORMAT", `${path} is not UTF-8`, { op: "prompts" });
  }
  const lines = text.split(/\r?\n/).filter((line) => line.trim() !== "");
  if (lines.length === 0) throw new RcmError("E_FORMAT", `${path} holds no prompt; write one a line`, { op: "prompts" });
  return lines;
}

/** A text embedding in full length: bf16 [textLen, textDim], zeros past what was given. Throws: E_SHAPE naming the source. */
export function padEmbedding(t: HostTensor, textLen: number, textDim: number, source: string): HostTensor {
  const shape = t.shape.slice(-2);
  const [length, width] = shape;
  if (shape.length !== 2 || numel(t.shape) !== length * width || width !== textDim || length > textLen || length < 1) {
    throw new RcmError("E_SHAPE", `${source} is no text embedding of this model`, { op: "embeds", want: `[1 to ${textLen}, ${textDim}]`, got: t.shape });
  }
  const bf16 = t.dtype === "bf16" ? t : hostTensor("bf16", [length, width], hostValues(t));
  if (length === textLen) return { dtype: "bf16", shape: [textLen, textDim], data: bf16.data };
  const data = new Uint8Array(new ArrayBuffer(textLen * textDim * 2));
  data.set(bf16.data);
  return { dtype: "bf16", shape: [textLen, textDim], data };
}

/** Reads the embedding of one prompt from a torch file that holds one tensor. */
export const readEmbedding = (path: string, textLen: number, textDim: number): HostTensor => padEmbedding(readTorchTensor(path), textLen, textDim, path);

/** Embeddings made before: a folder of `{index:09d}.embed.pt` files, or of shards whose samples are numbered so. */
export class StoredEmbeds {
  private readonly files: ReadonlySet<string>;
  private readonly entries: ReadonlyMap<string, Entry>;

  /** Throws: E_IO when the folder cannot be listed, E_FORMAT when a shard is damaged. */
  constructor(readonly folder: string) {
    let names: string[];
    try {
      names = readdirSync(folder);
    } catch (cause) {
      throw new RcmError("E_IO", `cannot list ${folder}: ${(cause as Error).message}`, { op: "embeds", cause });
    }
    this.files = new Set(names.filter((n) => n.endsWith(".embed.pt")));
    const shards = names.some((n) => /^shard[_-]\d+\.tar$/.test(n)) ? listShards(folder) : [];
    this.entries = new Map(shards.flatMap(indexShard).map((e) => [e.key, e]));
    if (this.files.size + this.entries.size === 0) throw new RcmError("E_FORMAT", `${folder} holds neither 000000000.embed.pt files nor shards`, { op: "embeds" });
  }

  /** Throws: E_IO naming the file that is wanted and not there. */
  get(index: number, textLen: number, textDim: number): HostTensor {
    const key = fileKey(String(index));
    const name = `${key}.${KINDS[1]}`;
    if (this.files.has(name)) return readEmbedding(join(this.folder, name), textLen, textDim);
    const entry = this.entries.get(key);
    if (!entry) throw new RcmError("E_IO", `${this.folder} has no embedding of prompt ${index} (${name})`, { op: "embeds" });
    const { start, size } = entry["embed.pt"];
    const bytes = withFile(entry.path, (fd) => readAt(fd, entry.path, start, size));
    return padEmbedding(readTorchTensor(bytes, `${entry.path}: ${name}`), textLen, textDim, name);
  }
}
