import { crc32 } from "node:zlib";
import { RcmError } from "../error.ts";
import type { OutFile } from "./out_file.ts";
import { CENTRAL_HEADER, END_RECORD, LOCAL_HEADER, MAX_U16, MAX_U32, ZIP64_END_RECORD, ZIP64_LOCATOR } from "./zip.ts";

export { readZip } from "./zip_read.ts";

/**
 * Writes the zip of torch.save: stored entries, data aligned to 64 bytes, zip64 if needed. The reader is zip_read.ts.
 */

const ZIP64 = 1;
const PADDING = 0x4246;

/** Packs little-endian fields. */
function record(...fields: [value: number, bytes: 2 | 4 | 8][]): Uint8Array {
  const out = new Uint8Array(fields.reduce((n, [, b]) => n + b, 0));
  const view = new DataView(out.buffer);
  let at = 0;
  for (const [value, bytes] of fields) {
    if (bytes === 2) view.setUint16(at, value, true);
    else if (bytes === 4) view.setUint32(at, value, true);
    else view.setBigUint64(at, BigInt(value), true);
    at += bytes;
  }
  return out;
}

const low = (v: number): number => Math.min(v, MAX_U32);

interface Member {
  label: Uint8Array;
  crc: number;
  size: number;
  /** Bytes from the start of the archive to the member's header. */
  header: number;
}

/** Appends an archive to a file, which need not be empty; data are written in chunks. */
export class ZipWriter {
  private readonly base: number;
  private readonly members: Member[] = [];

  constructor(private readonly file: OutFile) {
    this.base = file.position;
  }

  /** Adds a member of known size. Throws: E_INTERNAL when the chunks add up to another size. */
  member(name: string, size: number, chunks: Iterable<Uint8Array>): void {
    const label = new TextEncoder().encode(name);
    const header = this.file.position - this.base;
    const big = size >= MAX_U32;
    const wide = big ? record([ZIP64, 2], [16, 2], [size, 8], [size, 8]) : new Uint8Array(0);
    // Alignment is relative to the file, not to the start of the archive.
    const gap = (64 - ((this.file.position + 30 + label.length + wide.length + 4) % 64)) % 64;
    const head = record(
      [LOCAL_HEADER, 4],
      [big ? 45 : 0, 2],
      [0, 2],
      [0, 2],
      [0, 2],
      [0, 2],
      [0, 4],
      [low(size), 4],
      [low(size), 4],
      [label.length, 2],
      [wide.length + 4 + gap, 2],
    );
    for (const part of [head, label, wide, record([PADDING, 2], [gap, 2]), new Uint8Array(gap).fill(0x5a)])
      this.file.write(part);
    const start = this.file.position;
    let crc = 0;
    for (const chunk of chunks) {
      crc = crc32(chunk, crc);
      this.file.write(chunk);
    }
    if (this.file.position - start !== size)
      throw new RcmError("E_INTERNAL", `${name} gave ${this.file.position - start} bytes instead of ${size}`, {
        op: "torch",
      });
    this.file.patch(this.base + header + 14, record([crc, 4]));
    this.members.push({ label, crc, size, header });
  }

  /** Writes the directory. */
  end(): void {
    const { file } = this;
    const start = file.position - this.base;
    for (const { label, crc, size, header } of this.members) {
      const long = [...(size >= MAX_U32 ? [size, size] : []), ...(header >= MAX_U32 ? [header] : [])];
      const extra =
        long.length > 0
          ? record([ZIP64, 2], [8 * long.length, 2], ...long.map((v): [number, 8] => [v, 8]))
          : new Uint8Array(0);
      const version = long.length > 0 ? 45 : 0;
      file.write(
        record(
          [CENTRAL_HEADER, 4],
          [version, 2],
          [version, 2],
          [0, 2],
          [0, 2],
          [0, 2],
          [0, 2],
          [crc, 4],
          [low(size), 4],
          [low(size), 4],
          [label.length, 2],
          [extra.length, 2],
          [0, 2],
          [0, 2],
          [0, 2],
          [0, 4],
          [low(header), 4],
        ),
      );
      file.write(label);
      file.write(extra);
    }
    const length = file.position - this.base - start;
    const count = this.members.length;
    if (count >= MAX_U16 || start >= MAX_U32 || length >= MAX_U32) {
      const at = file.position - this.base;
      file.write(
        record(
          [ZIP64_END_RECORD, 4],
          [44, 8],
          [45, 2],
          [45, 2],
          [0, 4],
          [0, 4],
          [count, 8],
          [count, 8],
          [length, 8],
          [start, 8],
        ),
      );
      file.write(record([ZIP64_LOCATOR, 4], [0, 4], [at, 8], [1, 4]));
    }
    file.write(
      record(
        [END_RECORD, 4],
        [0, 2],
        [0, 2],
        [Math.min(count, MAX_U16), 2],
        [Math.min(count, MAX_U16), 2],
        [low(length), 4],
        [low(start), 4],
        [0, 2],
      ),
    );
  }
}
