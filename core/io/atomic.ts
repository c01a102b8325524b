import { closeSync, fsyncSync, mkdirSync, openSync, renameSync, rmSync, writeSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { RcmError } from "../error.ts";

/** Writes all of a chunk; the system may take less at a time. */
export function writeAll(fd: number, chunk: Uint8Array): void {
  for (let at = 0; at < chunk.length; ) at += writeSync(fd, chunk, at, chunk.length - at);
}

/** What went wrong with writing a file, in words. */
export function ioError(path: string, cause: unknown): RcmError {
  const { code, message } = cause as NodeJS.ErrnoException;
  const why = code === "ENOSPC" ? "disk full" : code === "EACCES" ? "permission denied" : (message ?? String(cause));
  return new RcmError("E_IO", `cannot write ${path}: ${why}`, { op: "write", cause });
}

/**
 * Replaces a file as a whole: written beside it under a temporary name, synced, renamed, folder synced. On any failure
 * the old file stays as it was. Throws: E_IO naming the path; errors of the chunk source as they are.
 */
export function writeFileAtomic(path: string, chunks: string | Uint8Array | Iterable<Uint8Array>): void {
  const folder = dirname(path);
  const temporary = join(folder, `.${basename(path)}.${process.pid}.tmp`);
  const source = typeof chunks === "string" ? [new TextEncoder().encode(chunks)] : chunks instanceof Uint8Array ? [chunks] : chunks;
  let fd = -1;
  let ours = true; // false while the source runs: its errors are not about this file
  try {
    mkdirSync(folder, { recursive: true });
    fd = openSync(temporary, "w", 0o644);
    const iterator = (source as Iterable<Uint8Array>)[Symbol.iterator]();
    for (;;) {
      ours = false;
      const next = iterator.next();
      ours = true;
      if (next.done) break;
      writeAll(fd, next.value);
    }
    fsyncSync(fd);
    closeSync(fd);
    fd = -1;
    renameSync(temporary, path);
    const dir = openSync(folder, "r");
    fsyncSync(dir);
    closeSync(dir);
  } catch (cause) {
    try {
      if (fd >= 0) closeSync(fd);
      rmSync(temporary, { force: true });
    } catch {
      // the first failure is the one to tell
    }
    throw ours ? ioError(path, cause) : cause;
  }
}

/** Appends one JSON object a line, each handed to the system at once. */
export class JsonlWriter {
  private readonly fd: number;

  constructor(readonly path: string) {
    try {
      mkdirSync(dirname(path), { recursive: true });
      this.fd = openSync(path, "a");
    } catch (cause) {
      throw ioError(path, cause);
    }
  }

  write(value: Record<string, unknown>): void {
    try {
      writeAll(this.fd, new TextEncoder().encode(`${JSON.stringify(value)}\n`));
    } catch (cause) {
      throw ioError(this.path, cause);
    }
  }

  close(): void {
    closeSync(this.fd);
  }
}
