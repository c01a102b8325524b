import { closeSync, fstatSync, openSync, readSync, statSync } from "node:fs";
import { RcmError } from "../error.ts";

/** Bytes with random access: a file, memory, or a part of either. */
export interface Source {
  /** Name in error messages. */
  readonly name: string;
  readonly size: number;
  /** Exactly n bytes from `at`; both must be inside. Throws: E_IO when reading fails, E_FORMAT when the file shrank. */
  read(at: number, n: number): Uint8Array;
}

/** Header structures (directories, pickles, indexes) larger than this are treated as damage. */
export const MAX_HEADER = 256 * 1024 * 1024;

export const memorySource = (bytes: Uint8Array, name: string): Source => ({
  name,
  size: bytes.length,
  read: (at, n) => bytes.subarray(at, at + n),
});

/** A part of a source as a source. The caller has checked the span. */
export const partOf = (s: Source, base: number, size: number, name = s.name): Source => ({
  name,
  size,
  read: (at, n) => s.read(base + at, n),
});

/** Opens a file for reading at positions beyond 4 GiB too, and always closes it. Throws: E_IO. */
export function withSource<T>(path: string, use: (source: Source) => T, op = "checkpoint"): T {
  const refused = (cause: unknown): RcmError =>
    new RcmError("E_IO", `cannot read ${path}: ${(cause as Error).message}`, { op, cause });
  let fd: number;
  let size: number;
  try {
    // A pipe would block in open.
    if (!statSync(path).isFile()) throw new Error("not a regular file");
    fd = openSync(path, "r");
  } catch (cause) {
    throw refused(cause);
  }
  try {
    size = fstatSync(fd).size;
    const read = (at: number, n: number): Uint8Array => {
      const out = new Uint8Array(new ArrayBuffer(n));
      for (let done = 0; done < n; ) {
        let got: number;
        try {
          got = readSync(fd, out, done, n - done, at + done);
        } catch (cause) {
          throw refused(cause);
        }
        if (got === 0) throw new RcmError("E_FORMAT", `${path} ends early, at byte ${at + done}`, { op });
        done += got;
      }
      return out;
    };
    return use({ name: path, size, read });
  } finally {
    closeSync(fd);
  }
}

/** The head of a source, at most `most` bytes. */
export const headOf = (s: Source, most: number): Uint8Array => s.read(0, Math.min(most, s.size));

/** Parses a small JSON file. Throws: E_IO, E_FORMAT. */
export function readJson(path: string): unknown {
  return withSource(path, (s) => parseJson(readWhole(s, MAX_HEADER), path));
}

/** All bytes of a source that must be small. Throws: E_FORMAT when it is not. */
export function readWhole(s: Source, most: number): Uint8Array {
  if (s.size > most)
    throw new RcmError("E_FORMAT", `${s.name} is too large for what it should be`, {
      op: "checkpoint",
      want: `at most ${most} bytes`,
      got: s.size,
    });
  return s.read(0, s.size);
}

/** Parses UTF-8 JSON. Throws: E_FORMAT naming the file. */
export function parseJson(bytes: Uint8Array, name: string): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new RcmError("E_FORMAT", `${name}: not JSON: ${(cause as Error).message}`, { op: "checkpoint", cause });
  }
}
