import { createHash, randomBytes } from "node:crypto";
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, readSync, realpathSync, renameSync, rmSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import type { HostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { writeFileAtomic } from "../io/atomic.ts";
import { readSafetensors, writeSafetensors } from "../io/safetensors.ts";
import { encoderFolder } from "../weights/encoder.ts";

/** Bytes that stand for a weight file: so many windows of so many bytes spread over it, with both ends. */
const WINDOWS = 256;
const WINDOW = 16384;

const sha256 = (...parts: (string | Uint8Array)[]): string => {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest("hex");
};

/** Moves a finished file into place. Two processes that made the same file leave one of them. */
const place = (path: string, write: (temporary: string) => void): void => {
  // Unique among processes and machines: the folder may be shared.
  const temporary = `${path}.${randomBytes(8).toString("hex")}`;
  try {
    write(temporary);
    renameSync(temporary, path);
  } catch (cause) {
    rmSync(temporary, { force: true });
    throw cause instanceof RcmError ? cause : new RcmError("E_IO", `cannot write ${path}: ${(cause as Error).message}`, { op: "prompt cache", cause });
  }
};

/** Files of a weight path: itself, or what a folder holds. */
function filesOf(path: string): string[] {
  try {
    if (!statSync(path).isDirectory()) return path.endsWith(".index.json") ? filesOf(dirname(path)) : [path];
    return readdirSync(path).sort().map((f) => join(path, f)).filter((f) => statSync(f).isFile());
  } catch (cause) {
    throw new RcmError("E_IO", `cannot read ${path}: ${(cause as Error).message}`, { op: "prompt cache", cause });
  }
}

/** Hash of sizes and of windows spread over the files: any training changes some of them. */
function sampleHash(files: string[]): string {
  const hash = createHash("sha256");
  const buffer = new Uint8Array(WINDOW);
  for (const file of files) {
    const { size } = statSync(file);
    hash.update(`${size};`);
    const fd = openSync(file, "r");
    try {
      const last = Math.max(0, size - WINDOW);
      for (let i = 0; i < WINDOWS; i++) {
        hash.update(buffer.subarray(0, readSync(fd, buffer, 0, WINDOW, Math.floor((last * i) / (WINDOWS - 1)))));
        if (last === 0) break;
      }
    } finally {
      closeSync(fd);
    }
  }
  return hash.digest("hex");
}

/** Embeddings of prompts on disk: one file each, named by the hash of all that it depends on. */
export class PromptCache {
  constructor(readonly folder: string) {
    try {
      mkdirSync(folder, { recursive: true });
    } catch (cause) {
      throw new RcmError("E_IO", `cannot make ${folder}: ${(cause as Error).message}`, { op: "prompt cache", cause });
    }
  }

  /**
   * What stands for weights in keys: a hash of their content by samples, so that copies and other folders share entries. It is kept
   * beside the entries by place, size and time of change, so that known weights are not opened again.
   */
  weightsIdentity(path: string): string {
    const files = filesOf(encoderFolder(path));
    const stamp = sha256(JSON.stringify(files.map((f) => [realpathSync(f), statSync(f).size, statSync(f).mtimeMs])));
    const note = join(this.folder, `weights-${stamp.slice(0, 32)}.txt`);
    if (existsSync(note)) {
      const known = readFileSync(note, "utf8").trim();
      if (/^[0-9a-f]{64}$/.test(known)) return known;
    }
    const identity = sampleHash(files);
    place(note, (temporary) => writeFileAtomic(temporary, `${identity}\n`));
    return identity;
  }

  key(parts: Record<string, string | number>): string {
    return sha256(JSON.stringify(Object.entries(parts).sort(([a], [b]) => (a < b ? -1 : 1))));
  }

  private path(key: string): string {
    return join(this.folder, key.slice(0, 2), `${key}.safetensors`);
  }

  /** The rows of an entry; null when there is none, or none of this width that can be read. Shapes: [n, width]. */
  read(key: string, width: number | null): HostTensor | null {
    const path = this.path(key);
    if (!existsSync(path)) return null;
    try {
      const { tensors, metadata } = readSafetensors(path);
      const t = tensors.get("embed");
      return t && metadata.key === key && t.shape.length === 2 && (width === null || t.shape[1] === width) ? t : null;
    } catch (error) {
      if (error instanceof RcmError) return null;
      throw error;
    }
  }

  write(key: string, rows: HostTensor, metadata: Record<string, string>): void {
    const path = this.path(key);
    mkdirSync(dirname(path), { recursive: true });
    place(path, (temporary) => writeSafetensors(temporary, [["embed", rows]], { format: "rcm-prompt", key, ...metadata }));
  }
}
