import { closeSync, fsyncSync, mkdirSync, openSync, writeSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { RcmError } from "../error.ts";

/** TensorBoard event files, written by hand: protobuf messages in TFRecord frames. */

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc;
});

/** CRC-32C (Castagnoli, reflected) of bytes. */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (let i = 0; i < bytes.length; i++) crc = CRC_TABLE[(crc ^ bytes[i]) & 0xff] ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** TFRecord masks checksums, since a CRC of data that contain CRCs is weak. */
export function maskedCrc(bytes: Uint8Array): number {
  const crc = crc32c(bytes);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

const utf8 = new TextEncoder();

function varint(value: number): Uint8Array {
  const out: number[] = [];
  let rest = BigInt.asUintN(64, BigInt(value));
  while (rest > 127n) {
    out.push(Number(rest & 127n) | 128);
    rest >>= 7n;
  }
  out.push(Number(rest));
  return Uint8Array.from(out);
}

const concat = (parts: Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts));

/** Protobuf fields by wire type: 0 varint, 1 eight bytes, 2 counted bytes, 5 four bytes. */
const integer = (field: number, value: number): Uint8Array => concat([varint(field << 3), varint(value)]);
const counted = (field: number, body: Uint8Array): Uint8Array =>
  concat([varint((field << 3) | 2), varint(body.length), body]);

function double(field: number, value: number): Uint8Array {
  const out = new Uint8Array(9);
  out[0] = (field << 3) | 1;
  new DataView(out.buffer).setFloat64(1, value, true);
  return out;
}

function float(field: number, value: number): Uint8Array {
  const out = new Uint8Array(5);
  out[0] = (field << 3) | 5;
  new DataView(out.buffer).setFloat32(1, value, true);
  return out;
}

/** A TFRecord: length, its masked CRC, data, their masked CRC. */
function frame(data: Uint8Array): Uint8Array {
  const out = new Uint8Array(data.length + 16);
  const view = new DataView(out.buffer);
  view.setBigUint64(0, BigInt(data.length), true);
  view.setUint32(8, maskedCrc(out.subarray(0, 8)), true);
  out.set(data, 12);
  view.setUint32(12 + data.length, maskedCrc(data), true);
  return out;
}

/** Separates the files of writers that start in one second of one process. */
let serial = 0;

/**
 * Appends events to a new file in a folder that TensorBoard watches; calls are unbuffered, so a killed run keeps them.
 * Throws: E_IO if the folder or file cannot be written, E_STATE after close.
 * Source: tensorflow/core/util/event.proto, tensorflow/core/framework/summary.proto, TFRecord format.
 */
export class EventWriter {
  readonly path: string;
  private fd: number | undefined;

  constructor(dir: string) {
    const seconds = Math.floor(Date.now() / 1000);
    this.path = join(dir, `events.out.tfevents.${seconds}.${hostname()}.${process.pid}.${serial++}`);
    try {
      mkdirSync(dir, { recursive: true });
      this.fd = openSync(this.path, "a");
    } catch (cause) {
      throw this.failure("cannot create", cause);
    }
    this.append([double(1, Date.now() / 1000), counted(3, utf8.encode("brain.Event:2"))]);
  }

  /** Records a number; NaN and infinities are kept, TensorBoard shows them as gaps. */
  scalar(tag: string, value: number, step: number, wallTime = Date.now() / 1000): void {
    this.summary([counted(1, utf8.encode(tag)), float(2, value)], step, wallTime);
  }

  /** Records an encoded PNG of the given size. */
  image(tag: string, png: Uint8Array, { width, height }: { width: number; height: number }, step: number): void {
    const channels = png[25] === 0 ? 1 : 3;
    const body = concat([integer(1, height), integer(2, width), integer(3, channels), counted(4, png)]);
    this.summary([counted(1, utf8.encode(tag)), counted(4, body)], step, Date.now() / 1000);
  }

  /** Syncs to disk, so that events survive a power failure too. */
  flush(): void {
    if (this.fd === undefined) return;
    try {
      fsyncSync(this.fd);
    } catch (cause) {
      throw this.failure("cannot flush", cause);
    }
  }

  /** Flushes and closes; closing twice is fine. */
  close(): void {
    if (this.fd === undefined) return;
    const fd = this.fd;
    try {
      this.flush();
    } finally {
      this.fd = undefined;
      closeSync(fd);
    }
  }

  private summary(value: Uint8Array[], step: number, wallTime: number): void {
    if (!Number.isSafeInteger(step))
      throw new RcmError("E_ARG", "an event's step is a whole number", { op: "EventWriter", got: step });
    this.append([double(1, wallTime), integer(2, step), counted(5, counted(1, concat(value)))]);
  }

  private append(event: Uint8Array[]): void {
    if (this.fd === undefined)
      throw new RcmError("E_STATE", `the event file ${this.path} is closed`, { op: "EventWriter" });
    const bytes = frame(concat(event));
    try {
      for (let done = 0; done < bytes.length; ) done += writeSync(this.fd, bytes, done, bytes.length - done);
    } catch (cause) {
      throw this.failure("cannot write", cause);
    }
  }

  private failure(what: string, cause: unknown): RcmError {
    return new RcmError("E_IO", `${what} ${this.path}: ${(cause as Error).message}`, { op: "EventWriter", cause });
  }
}
