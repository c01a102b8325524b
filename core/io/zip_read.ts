import { crc32 } from "node:zlib";
import { RcmError } from "../error.ts";
import { MAX_HEADER, memorySource, type Source } from "./source.ts";
import { CENTRAL_HEADER, END_RECORD, LOCAL_HEADER, MAX_U16, MAX_U32, ZIP64_END_RECORD, ZIP64_LOCATOR } from "./zip.ts";

/** Reads the zip of torch.save: stored entries only, zip64 if needed. Reads the directory, not the data. */

const PIECE = 1 << 24;

/** A stored member: its bytes are at `offset` of the source. */
export interface ZipMember {
  name: string;
  offset: number;
  size: number;
  crc: number;
}

const bad = (name: string, message: string, got?: unknown): RcmError =>
  new RcmError("E_FORMAT", `${name}: ${message}`, { op: "torch", got });
const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** Members by name, in directory order; the header of a member is read on demand. Throws: E_IO, E_FORMAT. */
export class ZipDirectory {
  private readonly entries = new Map<string, { header: number; size: number; crc: number }>();

  constructor(private readonly source: Source) {
    const { name } = source;
    const { count, offset, end } = findEnd(source);
    if (end - offset > MAX_HEADER) throw bad(name, "zip directory is too large", end - offset);
    const bytes = source.read(offset, end - offset);
    const view = viewOf(bytes);
    let at = 0;
    for (let i = 0; i < count; i++) {
      if (at + 46 > bytes.length || view.getUint32(at, true) !== CENTRAL_HEADER)
        throw bad(name, `zip directory entry ${i} is damaged at byte ${offset + at}`);
      const method = view.getUint16(at + 10, true);
      const [nameLength, extraLength, commentLength] = [28, 30, 32].map((o) => view.getUint16(at + o, true));
      const next = at + 46 + nameLength + extraLength + commentLength;
      if (next > bytes.length) throw bad(name, `zip directory entry ${i} runs past the end`);
      const entry = new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + nameLength));
      let [stored, size, header] = [
        view.getUint32(at + 20, true),
        view.getUint32(at + 24, true),
        view.getUint32(at + 42, true),
      ];
      if (stored === MAX_U32 || size === MAX_U32 || header === MAX_U32) {
        [size, stored, header] = zip64Extra(
          { view, start: at + 46 + nameLength, length: extraLength, entry },
          { size, stored, header },
          source,
        );
      }
      if (method !== 0 || stored !== size)
        throw bad(name, `member ${entry} is compressed; torch writes stored members`, method);
      if (header + 30 > source.size) throw bad(name, `member ${entry} has no header at byte ${header}`);
      if (this.entries.has(entry)) throw bad(name, `two members are named ${entry}`);
      this.entries.set(entry, { header, size, crc: view.getUint32(at + 16, true) });
      at = next;
    }
  }

  get names(): string[] {
    return [...this.entries.keys()];
  }
  has(name: string): boolean {
    return this.entries.has(name);
  }

  /** Location of a member's data; null when there is no such member. Throws: E_FORMAT when it is outside the file. */
  locate(entry: string): ZipMember | null {
    const found = this.entries.get(entry);
    if (!found) return null;
    const { header, size, crc } = found;
    const { name, size: fileSize } = this.source;
    const local = viewOf(this.source.read(header, 30));
    if (local.getUint32(0, true) !== LOCAL_HEADER) throw bad(name, `member ${entry} has no header at byte ${header}`);
    const offset = header + 30 + local.getUint16(26, true) + local.getUint16(28, true);
    if (offset + size > fileSize)
      throw bad(name, `member ${entry} runs past the end: ${size} bytes at ${offset}`, fileSize);
    return { name: entry, offset, size, crc };
  }

  /** Verifies a member's checksum, reading it in pieces. Throws: E_FORMAT when it is damaged. */
  check(entry: string): void {
    const m = this.locate(entry);
    if (!m) return;
    let crc = 0;
    for (let at = 0; at < m.size; at += PIECE)
      crc = crc32(this.source.read(m.offset + at, Math.min(PIECE, m.size - at)), crc);
    if (crc !== m.crc) throw bad(this.source.name, `member ${entry} is damaged: its checksum does not match`);
  }

  /** A member's bytes, their CRC-32 checked. Throws: E_FORMAT when they are damaged or more than `most`. */
  read(entry: string, most = Number.MAX_SAFE_INTEGER): Uint8Array | null {
    const m = this.locate(entry);
    if (!m) return null;
    if (m.size > most) throw bad(this.source.name, `member ${entry} is too large: ${m.size} bytes`);
    const data = this.source.read(m.offset, m.size);
    if (crc32(data) !== m.crc) throw bad(this.source.name, `member ${entry} is damaged: its checksum does not match`);
    return data;
  }
}

/** Entries by name; data are windows into `bytes`, their CRC-32 checked. Throws: E_FORMAT. */
export function readZip(bytes: Uint8Array, name: string): Map<string, Uint8Array> {
  const directory = new ZipDirectory(memorySource(bytes, name));
  return new Map(directory.names.map((entry) => [entry, directory.read(entry) as Uint8Array]));
}

/** Number of entries and span of the directory. The end record is searched backwards, as a comment may follow it. */
function findEnd(source: Source): { count: number; offset: number; end: number } {
  for (const tail of [1024, 22 + 20 + MAX_U16]) {
    const found = findEndIn(source, Math.min(source.size, tail));
    if (found) return found;
  }
  throw bad(source.name, "not a torch zip file (no end record)");
}

function findEndIn(source: Source, tail: number): { count: number; offset: number; end: number } | null {
  const { name, size } = source;
  const base = size - tail;
  const bytes = source.read(base, tail);
  const view = viewOf(bytes);
  for (let at = tail - 22; at >= 0; at--) {
    if (view.getUint32(at, true) !== END_RECORD) continue;
    let [count, length, offset] = [
      view.getUint16(at + 10, true),
      view.getUint32(at + 12, true),
      view.getUint32(at + 16, true),
    ];
    let end = base + at;
    if (
      (count === MAX_U16 || offset === MAX_U32 || length === MAX_U32) &&
      at >= 20 &&
      view.getUint32(at - 20, true) === ZIP64_LOCATOR
    ) {
      end = big(view, at - 12, source);
      if (end + 56 > size) throw bad(name, "zip64 end record is damaged");
      const v64 = viewOf(source.read(end, 56));
      if (v64.getUint32(0, true) !== ZIP64_END_RECORD) throw bad(name, "zip64 end record is damaged");
      [count, length, offset] = [big(v64, 32, source), big(v64, 40, source), big(v64, 48, source)];
    }
    if (offset + length > end || count * 46 > length)
      throw bad(name, "zip directory runs past the end", { count, offset });
    return { count, offset, end: offset + length };
  }
  return null;
}

function big(view: DataView, at: number, source: Source): number {
  if (at < 0 || at + 8 > view.byteLength) throw bad(source.name, "zip64 field outside the file");
  const v = view.getBigUint64(at, true);
  if (v > BigInt(source.size)) throw bad(source.name, "zip64 size larger than the file", String(v));
  return Number(v);
}

/** Sizes and offset that are too large for the directory entry, from its extra field. Throws: E_FORMAT. */
function zip64Extra(
  { view, start, length, entry }: { view: DataView; start: number; length: number; entry: string },
  v: { size: number; stored: number; header: number },
  source: Source,
): [number, number, number] {
  const { name } = source;
  for (let at = start; at + 4 <= start + length; ) {
    const [id, size] = [view.getUint16(at, true), view.getUint16(at + 2, true)];
    if (id === 1) {
      let next = at + 4;
      const take = (old: number): number => {
        if (old !== MAX_U32) return old;
        if (next + 8 > at + 4 + size) throw bad(name, `member ${entry} has a short zip64 field`);
        next += 8;
        return big(view, next - 8, source);
      };
      return [take(v.size), take(v.stored), take(v.header)];
    }
    at += 4 + size;
  }
  throw bad(name, `member ${entry} lacks its zip64 field`);
}
