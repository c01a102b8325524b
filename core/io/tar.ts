import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { RcmError } from "../error.ts";
import { writeFileAtomic } from "./atomic.ts";

/** Tar files, as far as data shards need them: ustar, pax paths and sizes, GNU long names. */

const BLOCK = 512;
/** Extended headers hold names; anything larger is damage. */
const EXTENDED_LIMIT = 1 << 20;
/** Largest size an 11-digit octal field holds. */
const OCTAL_LIMIT = 8 ** 11 - 1;

/** A regular file inside a tar: its data are `size` bytes at byte `start` of the tar; its header is at `offset`. */
export interface TarMember {
  name: string;
  offset: number;
  start: number;
  size: number;
}

const text = new TextDecoder();
const utf8 = new TextEncoder();
const padded = (size: number): number => Math.ceil(size / BLOCK) * BLOCK;

function bad(path: string, offset: number, what: string, detail: { want?: unknown; got?: unknown } = {}): RcmError {
  return new RcmError("E_FORMAT", `${what} (${path}, byte ${offset})`, { op: "tar", ...detail });
}

/**
 * Opens a file, passes its descriptor and size to `use` and always closes it.
 * Throws: E_IO if the file cannot be opened or is not a regular file.
 */
export function withFile<T>(path: string, use: (fd: number, size: number) => T): T {
  const fd = openFile(path);
  try {
    return use(fd, sizeOf(fd, path));
  } finally {
    closeSync(fd);
  }
}

function openFile(path: string): number {
  try {
    return openSync(path, "r");
  } catch (cause) {
    throw new RcmError("E_IO", `cannot open ${path}: ${(cause as Error).message}`, { op: "tar", cause });
  }
}

function sizeOf(fd: number, path: string): number {
  const stat = fstatSync(fd);
  if (!stat.isFile()) throw new RcmError("E_IO", `${path} is not a regular file`, { op: "tar" });
  return stat.size;
}

/**
 * Reads exactly `length` bytes at `at`, a span that the caller has checked. Throws: E_IO, E_FORMAT if the file shrank.
 */
export function readAt(fd: number, path: string, at: number, length: number): Uint8Array {
  const out = new Uint8Array(length);
  let done = 0;
  while (done < length) {
    let got: number;
    try {
      got = readSync(fd, out, done, length - done, at + done);
    } catch (cause) {
      throw new RcmError("E_IO", `cannot read ${path}: ${(cause as Error).message}`, { op: "tar", cause });
    }
    if (got === 0) throw bad(path, at + done, "the file ends early", { want: length, got: done });
    done += got;
  }
  return out;
}

function cString(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return text.decode(end < 0 ? bytes : bytes.subarray(0, end));
}

/** An octal field, or GNU base-256 where the first bit is set. */
function number(field: Uint8Array, path: string, offset: number, what: string): number {
  if (field[0] & 0x80) {
    let value = field[0] & 0x7f;
    for (let i = 1; i < field.length; i++) value = value * 256 + field[i];
    if (!Number.isSafeInteger(value)) throw bad(path, offset, `the ${what} of a tar header is out of range`);
    return value;
  }
  const digits = cString(field).trim();
  if (!/^[0-7]*$/.test(digits)) throw bad(path, offset, `the ${what} of a tar header is not octal`, { got: digits });
  return digits === "" ? 0 : Number.parseInt(digits, 8);
}

function checksum(header: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < BLOCK; i++) sum += i >= 148 && i < 156 ? 32 : header[i];
  return sum;
}

/** Records of a pax header: "length key=value\n". */
function paxRecords(data: Uint8Array, path: string, offset: number): Map<string, string> {
  const records = new Map<string, string>();
  for (let at = 0; at < data.length && data[at] !== 0; ) {
    const space = data.indexOf(32, at);
    const digits = space < 0 || space - at > 8 ? "" : text.decode(data.subarray(at, space));
    const end = at + Number(digits);
    const equals = data.indexOf(61, space);
    if (!/^[0-9]+$/.test(digits) || end > data.length || equals < 0 || equals >= end - 1 || data[end - 1] !== 10) {
      throw bad(path, offset + BLOCK + at, "a pax record is damaged");
    }
    records.set(text.decode(data.subarray(space + 1, equals)), text.decode(data.subarray(equals + 1, end - 1)));
    at = end;
  }
  return records;
}

function paxSize(value: string, path: string, offset: number): number {
  if (!/^[0-9]{1,15}$/.test(value))
    throw bad(path, offset, "the pax size is not a number", { got: value.slice(0, 40) });
  return Number(value);
}

/** The name in a ustar header; the prefix field means a folder only under the POSIX magic. */
function headerName(header: Uint8Array): string {
  const name = cString(header.subarray(0, 100));
  const posix = text.decode(header.subarray(257, 263)) === "ustar\0";
  const prefix = posix ? cString(header.subarray(345, 500)) : "";
  return prefix === "" ? name : `${prefix}/${name}`;
}

/**
 * Lists the regular files of an open tar in order, reading headers only; a missing end marker is damage.
 * Throws: E_FORMAT naming file and byte for a bad header, or a size beyond the file.
 * Source: POSIX.1-2024 pax; GNU tar manual, "Basic Tar Format".
 */
export function* members(fd: number, path: string, fileSize: number): Generator<TarMember> {
  let longName: string | undefined;
  let size: number | undefined;
  for (let at = 0; ; ) {
    if (at + BLOCK > fileSize) throw bad(path, at, "the tar is cut off: it has no end marker");
    const header = readAt(fd, path, at, BLOCK);
    if (header.every((byte) => byte === 0)) {
      if (longName !== undefined || size !== undefined)
        throw bad(path, at, "an extended tar header describes no member");
      return;
    }
    const sum = number(header.subarray(148, 156), path, at, "checksum");
    if (sum !== checksum(header))
      throw bad(path, at, "a tar header's checksum is wrong", { want: checksum(header), got: sum });
    const type = String.fromCharCode(header[156] || 48);
    const extended = type === "x" || type === "g" || type === "L" || type === "K";
    const ownSize = number(header.subarray(124, 136), path, at, "size");
    const length = extended ? ownSize : (size ?? ownSize);
    if (at + BLOCK + length > fileSize) {
      throw bad(
        path,
        at,
        `the tar is cut off inside ${extended ? "an extended header" : (longName ?? headerName(header))}`,
        { want: length, got: Math.max(0, fileSize - at - BLOCK) },
      );
    }
    if (extended) {
      if (length > EXTENDED_LIMIT)
        throw bad(path, at, "an extended tar header is too large", { want: `<= ${EXTENDED_LIMIT}`, got: length });
      const data = readAt(fd, path, at + BLOCK, length);
      if (type === "L") longName = cString(data);
      if (type === "x") {
        const records = paxRecords(data, path, at);
        longName = records.get("path") ?? longName;
        const declared = records.get("size");
        if (declared !== undefined) size = paxSize(declared, path, at);
      }
    } else {
      if (type === "0" || type === "7")
        yield { name: longName ?? headerName(header), offset: at, start: at + BLOCK, size: length };
      longName = undefined;
      size = undefined;
    }
    at += BLOCK + padded(length);
  }
}

function headerOf(name: Uint8Array, size: number, type: string): Uint8Array {
  const header = new Uint8Array(BLOCK);
  const put = (at: number, value: string): void => void header.set(utf8.encode(value), at);
  const octal = (value: number, digits: number): string => `${value.toString(8).padStart(digits, "0")}\0`;
  header.set(name.subarray(0, 100), 0);
  put(100, octal(0o644, 7));
  put(108, octal(0, 7));
  put(116, octal(0, 7));
  put(124, octal(Math.min(size, OCTAL_LIMIT), 11));
  put(136, octal(0, 11));
  put(156, type);
  put(257, "ustar\x0000");
  put(148, `${checksum(header).toString(8).padStart(6, "0")}\0 `);
  return header;
}

/** A pax record's length includes the digits of the length. */
function paxRecord(key: string, value: string): Uint8Array {
  const rest = utf8.encode(` ${key}=${value}\n`).length;
  let length = rest + String(rest).length;
  length = rest + String(length).length;
  return utf8.encode(`${length} ${key}=${value}\n`);
}

/** Header (extended if name or size need it), data and padding of one member. Throws: E_ARG for an unusable name. */
export function* tarEntry(name: string, data: Uint8Array): Generator<Uint8Array> {
  const bytes = utf8.encode(name);
  if (bytes.length === 0 || name.includes("\0"))
    throw new RcmError("E_ARG", "a tar member needs a name without NUL", { op: "writeTar", got: name });
  const records = [
    ...(bytes.length > 100 ? [paxRecord("path", name)] : []),
    ...(data.length > OCTAL_LIMIT ? [paxRecord("size", String(data.length))] : []),
  ];
  if (records.length > 0) {
    const body = new Uint8Array(Buffer.concat(records));
    yield headerOf(utf8.encode("PaxHeader"), body.length, "x");
    yield body;
    yield new Uint8Array(padded(body.length) - body.length);
  }
  yield headerOf(bytes, data.length, "0");
  yield data;
  yield new Uint8Array(padded(data.length) - data.length);
}

/** End marker of a tar. */
export const TAR_END: Uint8Array = new Uint8Array(2 * BLOCK);

/** The byte after a member and its padding. */
export const memberEnd = (m: TarMember): number => m.start + padded(m.size);

function* blocks(entries: Iterable<[string, Uint8Array]>): Generator<Uint8Array> {
  for (const [name, data] of entries) yield* tarEntry(name, data);
  yield TAR_END;
}

/**
 * Writes regular files to a tar, atomically; mode 644, owner and time 0, so equal contents give equal bytes.
 * Throws: E_ARG for an unusable name, E_IO if the file cannot be written.
 */
export function writeTar(path: string, entries: Iterable<[string, Uint8Array]>): void {
  writeFileAtomic(path, blocks(entries));
}
