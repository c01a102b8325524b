import { closeSync, mkdirSync, openSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { AtomicFile, writeError } from "./out_file.ts";

/**
 * Replaces a file atomically: writes a temporary file in the same folder, syncs and renames it, syncs the folder. On
 * any failure the old file is unchanged. Throws: E_IO naming the path; errors of the chunk source as they are.
 */
export function writeFileAtomic(path: string, chunks: string | Uint8Array | Iterable<Uint8Array>): void {
  const source =
    typeof chunks === "string" ? [new TextEncoder().encode(chunks)] : chunks instanceof Uint8Array ? [chunks] : chunks;
  using file = new AtomicFile(path);
  for (const chunk of source) file.write(chunk);
  file.commit();
}

/** Appends one JSON object a line, unbuffered. */
export class JsonlWriter {
  private readonly fd: number;

  constructor(readonly path: string) {
    try {
      mkdirSync(dirname(path), { recursive: true });
      this.fd = openSync(path, "a");
    } catch (cause) {
      throw writeError(path, cause);
    }
  }

  write(value: Record<string, unknown>): void {
    try {
      const line = new TextEncoder().encode(`${JSON.stringify(value)}\n`);
      for (let done = 0; done < line.length; ) done += writeSync(this.fd, line, done, line.length - done);
    } catch (cause) {
      throw writeError(this.path, cause);
    }
  }

  close(): void {
    closeSync(this.fd);
  }
}
