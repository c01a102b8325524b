import { crc32 } from "node:zlib";
import { RcmError } from "../error.ts";

/** The zip of torch.save: stored entries only, data aligned to 64 bytes, zip64 where sizes ask for it. */

const LOCAL = 0x04034b50;
const CENTRAL = 0x02014b50;
const END = 0x06054b50;
const END64 = 0x06064b50;
const LOCATOR64 = 0x07064b50;
const MAX32 = 0xffffffff;

const bad = (name: string, message: string, got?: unknown): RcmError => new RcmError("E_FORMAT", `${name}: ${message}`, { op: "torch", got });

/** Entries by name; data are windows into `bytes`, their CRC-32 checked. Throws: E_FORMAT. */
export function readZip(bytes: Uint8Array, name: string): Map<string, Uint8Array> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const { count, offset } = endOf(view, name);
  const out = new Map<string, Uint8Array>();
  let at = offset;
  for (let i = 0; i < count; i++) {
    if (at + 46 > bytes.length || view.getUint32(at, true) !== CENTRAL) throw bad(name, `zip directory entry ${i} is damaged at byte ${at}`);
    const method = view.getUint16(at + 10, true);
    const crc = view.getUint32(at + 16, true);
    const [nameLength, extraLength, commentLength] = [28, 30, 32].map((o) => view.getUint16(at + o, true));
    const end = at + 46 + nameLength + extraLength + commentLength;
    if (end > bytes.length) throw bad(name, `zip directory entry ${i} runs past the end`);
    const entry = new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + nameLength));
    let [stored, size, header] = [view.getUint32(at + 20, true), view.getUint32(at + 24, true), view.getUint32(at + 42, true)];
    if (stored === MAX32 || size === MAX32 || header === MAX32) {
      [size, stored, header] = zip64Extra(view, at + 46 + nameLength, extraLength, { size, stored, header }, name, entry);
    }
    if (method !== 0 || stored !== size) throw bad(name, `member ${entry} is compressed; torch writes stored members`, method);
    if (header + 30 > bytes.length || view.getUint32(header, true) !== LOCAL) throw bad(name, `member ${entry} has no header at byte ${header}`);
    const from = header + 30 + view.getUint16(header + 26, true) + view.getUint16(header + 28, true);
    if (from + size > bytes.length) throw bad(name, `member ${entry} runs past the end: ${size} bytes at ${from}`, bytes.length);
    const data = bytes.subarray(from, from + size);
    if (crc32(data) !== crc) throw bad(name, `member ${entry} is damaged: its checksum does not match`);
    if (out.has(entry)) throw bad(name, `two members are named ${entry}`);
    out.set(entry, data);
    at = end;
  }
  return out;
}

function endOf(view: DataView, name: string): { count: number; offset: number } {
  const last = Math.max(0, view.byteLength - 22 - 65535);
  for (let at = view.byteLength - 22; at >= last; at--) {
    if (view.getUint32(at, true) !== END) continue;
    let [count, offset] = [view.getUint16(at + 10, true), view.getUint32(at + 16, true)];
    if ((count === 0xffff || offset === MAX32) && at >= 20 && view.getUint32(at - 20, true) === LOCATOR64) {
      const at64 = big(view, at - 12, name);
      if (at64 + 56 > view.byteLength || view.getUint32(at64, true) !== END64) throw bad(name, "zip64 end record is damaged");
      [count, offset] = [big(view, at64 + 32, name), big(view, at64 + 48, name)];
    }
    if (offset + count * 46 > view.byteLength) throw bad(name, "zip directory runs past the end", { count, offset });
    return { count, offset };
  }
  throw bad(name, "not a torch zip file (no end record)");
}

function big(view: DataView, at: number, name: string): number {
  if (at < 0 || at + 8 > view.byteLength) throw bad(name, "zip64 field outside the file");
  const v = view.getBigUint64(at, true);
  if (v > BigInt(view.byteLength)) throw bad(name, "zip64 size larger than the file", String(v));
  return Number(v);
}

function zip64Extra(view: DataView, start: number, length: number, v: { size: number; stored: number; header: number }, name: string, entry: string): [number, number, number] {
  for (let at = start; at + 4 <= start + length; ) {
    const [id, size] = [view.getUint16(at, true), view.getUint16(at + 2, true)];
    if (id === 1) {
      let next = at + 4;
      const take = (old: number): number => {
        if (old !== MAX32) return old;
        if (next + 8 > at + 4 + size) throw bad(name, `member ${entry} has a short zip64 field`);
        next += 8;
        return big(view, next - 8, name);
      };
      return [take(v.size), take(v.stored), take(v.header)];
    }
    at += 4 + size;
  }
  throw bad(name, `member ${entry} lacks its zip64 field`);
}

/** Builds a zip of stored members below 4 GiB. Member data start at multiples of 64 bytes, as torch lays them out. Throws: E_ARG when too large. */
export function writeZip(members: [string, Uint8Array][]): Uint8Array {
  const parts: Uint8Array[] = [];
  const central: Uint8Array[] = [];
  let at = 0;
  const push = (p: Uint8Array): void => {
    parts.push(p);
    at += p.length;
  };
  for (const [name, data] of members) {
    const label = new TextEncoder().encode(name);
    const crc = crc32(data);
    const gap = (64 - ((at + 30 + label.length + 4) % 64)) % 64;
    const extra = new Uint8Array(4 + gap).fill(0x5a, 4);
    new DataView(extra.buffer).setUint16(0, 0x4246, true);
    new DataView(extra.buffer).setUint16(2, gap, true);
    if (at + data.length > MAX32 - 65536) throw new RcmError("E_ARG", "a .pt file of 4 GiB or more; export safetensors instead", { op: "torch" });
    const fields = (view: DataView, base: number): void => {
      view.setUint32(base, crc, true);
      view.setUint32(base + 4, data.length, true);
      view.setUint32(base + 8, data.length, true);
      view.setUint16(base + 12, label.length, true);
    };
    const local = new Uint8Array(30);
    const lv = new DataView(local.buffer);
    lv.setUint32(0, LOCAL, true);
    fields(lv, 14);
    lv.setUint16(28, extra.length, true);
    const entry = new Uint8Array(46 + label.length);
    const cv = new DataView(entry.buffer);
    cv.setUint32(0, CENTRAL, true);
    fields(cv, 16);
    cv.setUint32(42, at, true);
    entry.set(label, 46);
    central.push(entry);
    for (const p of [local, label, extra, data]) push(p);
  }
  const start = at;
  for (const c of central) push(c);
  const end = new Uint8Array(22);
  const ev = new DataView(end.buffer);
  ev.setUint32(0, END, true);
  ev.setUint16(8, members.length, true);
  ev.setUint16(10, members.length, true);
  ev.setUint32(12, at - start, true);
  ev.setUint32(16, start, true);
  if (members.length > 0xfffe) throw new RcmError("E_ARG", "too many tensors for one .pt file", { op: "torch", got: members.length });
  push(end);
  const out = new Uint8Array(at);
  let to = 0;
  for (const p of parts) {
    out.set(p, to);
    to += p.length;
  }
  return out;
}
