import { crc32 } from "node:zlib";
import { RcmError } from "../error.ts";

export { readZip } from "./zip_read.ts";

/** Writer of the zip of torch.save: stored entries only, data aligned to 64 bytes. Its reader is zip_read.ts. */

const LOCAL = 0x04034b50;
const CENTRAL = 0x02014b50;
const END = 0x06054b50;
const MAX32 = 0xffffffff;

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
