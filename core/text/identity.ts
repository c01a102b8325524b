import { createHash, randomBytes } from "node:crypto";
import { closeSync, existsSync, openSync, readdirSync, readFileSync, readSync } from "node:fs";
import { realpathSync, renameSync, rmSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { RcmError } from "../error.ts";
import { writeFileAtomic } from "../io/atomic.ts";
import { encoderFolder } from "../weights/encoder.ts";

/** A file is sampled in this many windows of this many bytes, spread evenly from its first byte to its last. */
const WINDOWS = 256;
const WINDOW = 16384;

export const sha256 = (...parts: (string | Uint8Array)[]): string => {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest("hex");
};

/** Writes a file atomically by renaming a temporary one; the last of several writers wins. Throws: E_IO. */
export const place = (path: string, write: (temporary: string) => void): void => {
  // Unique among processes and machines: the folder may be shared.
  const temporary = `${path}.${randomBytes(8).toString("hex")}`;
  try {
    write(temporary);
    renameSync(temporary, path);
  } catch (cause) {
    rmSync(temporary, { force: true });
    if (cause instanceof RcmError) throw cause;
    throw new RcmError("E_IO", `cannot write ${path}: ${(cause as Error).message}`, { op: "prompt cache", cause });
  }
};

/** The files of a path: itself, or those in the folder. */
function contentsOf(path: string): string[] {
  try {
    if (!statSync(path).isDirectory()) return path.endsWith(".index.json") ? contentsOf(dirname(path)) : [path];
    return readdirSync(path).sort().map((f) => join(path, f)).filter((f) => statSync(f).isFile());
  } catch (cause) {
    throw new RcmError("E_IO", `cannot read ${path}: ${(cause as Error).message}`, { op: "text", cause });
  }
}

/**
 * Hash of file sizes and of windows spread over the files. Training changes weights everywhere, so a window differs.
 */
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

/** Hash of a file or folder by samples of its content; independent of its path. Throws: E_IO. */
export const contentIdentity = (path: string): string => sampleHash(contentsOf(path));

/**
 * Content hash of an encoder's weights. The folder `notes` caches it by path, size and modification time, so that known
 * weights are not read again; null: no cache. Throws: E_IO.
 */
export function weightsIdentity(path: string, notes: string | null): string {
  const files = contentsOf(encoderFolder(path));
  if (notes === null) return sampleHash(files);
  const stamp = sha256(JSON.stringify(files.map((f) => [realpathSync(f), statSync(f).size, statSync(f).mtimeMs])));
  const note = join(notes, `weights-${stamp.slice(0, 32)}.txt`);
  if (existsSync(note)) {
    const known = readFileSync(note, "utf8").trim();
    if (/^[0-9a-f]{64}$/.test(known)) return known;
  }
  const identity = sampleHash(files);
  place(note, (temporary) => writeFileAtomic(temporary, `${identity}\n`));
  return identity;
}
