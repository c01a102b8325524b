import { closeSync, existsSync, mkdirSync, openSync, renameSync } from "node:fs";
import { fdatasyncSync, fsyncSync, ftruncateSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { RcmError } from "../error.ts";
import { syncFolder, writeError } from "../io/out_file.ts";
import { memberEnd, members, TAR_END, tarEntry, withFile, type TarMember } from "../io/tar.ts";
import { decode, entriesOf, KINDS, sampleMember, type Entry, type Kind, type Sample } from "../io/webdataset.ts";

/**
 * Appends samples to one shard: written as `{path}.tmp`, synced after each sample, renamed when complete. The temporary
 * file of an earlier run is kept up to its last complete sample, so a killed job loses one sample at most.
 */
export class ShardAppender implements Disposable {
  /** Keys that the file holds, in order. */
  readonly keys: string[];
  private fd: number;

  /** Throws: E_IO when the file cannot be opened for writing. */
  constructor(readonly path: string) {
    const temporary = `${path}.tmp`;
    const kept = existsSync(temporary) ? wholeSamples(temporary) : [];
    this.keys = kept.map((k) => k.key);
    try {
      mkdirSync(dirname(path), { recursive: true });
      this.fd = openSync(temporary, existsSync(temporary) ? "r+" : "w+", 0o644);
      ftruncateSync(this.fd, kept.at(-1)?.end ?? 0);
      closeSync(this.fd);
      this.fd = openSync(temporary, "a");
    } catch (cause) {
      throw writeError(temporary, cause);
    }
  }

  append(sample: Sample): void {
    const parts: Uint8Array[] = [];
    for (const [name, data] of entriesOf(sample)) parts.push(...tarEntry(name, data));
    this.write(parts);
    this.keys.push(sample.key);
  }

  /** Ends the tar and renames it. */
  finish(): void {
    this.write([TAR_END]);
    try {
      fsyncSync(this.fd);
      this[Symbol.dispose]();
      renameSync(`${this.path}.tmp`, this.path);
      syncFolder(dirname(this.path));
    } catch (cause) {
      throw writeError(this.path, cause);
    }
  }

  private write(parts: Uint8Array[]): void {
    try {
      const bytes = Buffer.concat(parts);
      let done = 0;
      while (done < bytes.length) done += writeSync(this.fd, bytes, done, bytes.length - done);
      fdatasyncSync(this.fd);
    } catch (cause) {
      throw writeError(`${this.path}.tmp`, cause);
    }
  }

  [Symbol.dispose](): void {
    if (this.fd >= 0) closeSync(this.fd);
    this.fd = -1;
  }
}

/** The complete, readable samples at the start of an unfinished tar, each with its end offset. */
function wholeSamples(path: string): { key: string; end: number }[] {
  return withFile(path, (fd, size) => {
    const whole: { entry: Entry; end: number }[] = [];
    let parts: Partial<Record<Kind, TarMember>> = {};
    try {
      for (const m of members(fd, path, size)) {
        const member = sampleMember(m.name);
        if (member === null) break;
        parts[member.kind] = m;
        if (!KINDS.every((k) => parts[k])) continue;
        whole.push({ entry: { path, key: member.key, ...(parts as Record<Kind, TarMember>) }, end: memberEnd(m) });
        parts = {};
      }
    } catch (error) {
      if (!(error instanceof RcmError && error.code === "E_FORMAT")) throw error; // truncated by a killed run
    }
    for (; whole.length > 0; whole.pop()) {
      try {
        decode(fd, (whole.at(-1) as { entry: Entry }).entry);
        break;
      } catch (error) {
        if (!(error instanceof RcmError && error.code === "E_FORMAT")) throw error;
      }
    }
    return whole.filter(({ end }) => end <= size).map(({ entry, end }) => ({ key: entry.key, end }));
  });
}
