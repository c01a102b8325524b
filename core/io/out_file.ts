import { closeSync, fsyncSync, mkdirSync, openSync, renameSync, rmSync, writeSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { RcmError } from "../error.ts";

/** Output of a writer: sequential, with positions that are patched later. */
export interface OutFile {
  /** Bytes so far. */
  readonly position: number;
  write(chunk: Uint8Array): void;
  /** Writes at an offset, before or beyond the end; the position does not change. */
  patch(at: number, chunk: Uint8Array): void;
}

export function writeError(path: string, cause: unknown): RcmError {
  const { code, message } = cause as NodeJS.ErrnoException;
  const why = code === "ENOSPC" ? "disk full" : code === "EACCES" ? "permission denied" : (message ?? String(cause));
  return new RcmError("E_IO", `cannot write ${path}: ${why}`, { op: "write", cause });
}

export function syncFolder(folder: string): void {
  const dir = openSync(folder, "r");
  fsyncSync(dir);
  closeSync(dir);
}

/**
 * An atomic file: written to a temporary file in the same folder, which `commit` syncs and renames. Leaving the scope
 * without a commit removes it. Throws: E_IO naming the path.
 */
export class AtomicFile implements OutFile, Disposable {
  position = 0;
  private fd: number;
  private readonly temporary: string;

  constructor(readonly path: string) {
    this.temporary = join(dirname(path), `.${basename(path)}.${process.pid}.tmp`);
    this.fd = this.attempt(() => {
      mkdirSync(dirname(path), { recursive: true });
      return openSync(this.temporary, "w", 0o644);
    });
  }

  private attempt<T>(work: () => T): T {
    try {
      return work();
    } catch (cause) {
      throw writeError(this.path, cause);
    }
  }

  write(chunk: Uint8Array): void {
    this.patch(this.position, chunk);
    this.position += chunk.length;
  }

  patch(at: number, chunk: Uint8Array): void {
    // A write may be partial.
    this.attempt(() => {
      for (let done = 0; done < chunk.length; ) done += writeSync(this.fd, chunk, done, chunk.length - done, at + done);
    });
  }

  commit(): void {
    this.attempt(() => {
      fsyncSync(this.fd);
      closeSync(this.fd);
      this.fd = -1;
      renameSync(this.temporary, this.path);
      syncFolder(dirname(this.path));
    });
  }

  [Symbol.dispose](): void {
    if (this.fd < 0) return;
    try {
      closeSync(this.fd);
      this.fd = -1;
      rmSync(this.temporary, { force: true });
    } catch {
      // The first failure is the one to report.
    }
  }
}

/** An OutFile in memory. */
export class MemoryFile implements OutFile {
  position = 0;
  private bytes = new Uint8Array(new ArrayBuffer(4096));

  write(chunk: Uint8Array): void {
    this.patch(this.position, chunk);
    this.position += chunk.length;
  }

  patch(at: number, chunk: Uint8Array): void {
    const end = at + chunk.length;
    if (end > this.bytes.length) {
      const grown = new Uint8Array(new ArrayBuffer(Math.max(end, 2 * this.bytes.length)));
      grown.set(this.bytes);
      this.bytes = grown;
    }
    this.bytes.set(chunk, at);
  }

  get contents(): Uint8Array {
    return this.bytes.subarray(0, this.position);
  }
}
