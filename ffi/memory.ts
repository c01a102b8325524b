import { ptr } from "bun:ffi";
import { RcmError } from "./error.ts";
import type { Pointer } from "./call.ts";
import type { Rcm } from "./rcm.gen.ts";

export interface MemoryStats {
  /** Bytes in use and their peak. */
  current: number;
  peak: number;
  /** Bytes allocated from the system, including cached blocks, and their peak. */
  reserved: number;
  reservedPeak: number;
  /** Allocations so far, and blocks currently in use. */
  allocations: number;
  blocks: number;
}

// Built over an ArrayBuffer, as the collector may move small typed arrays.
const pointerOut = new BigInt64Array(new ArrayBuffer(8));
const statsOut = new BigInt64Array(new ArrayBuffer(48));

/** The address `bytes` after another. */
export const advance = (from: Pointer, bytes: number): Pointer => (from + bytes) as Pointer;

const address = (view: Uint8Array): Pointer => ptr(view) as unknown as Pointer;

/** Allocates device memory. Throws: E_OOM. */
export function alloc(lib: Rcm, bytes: number): Pointer {
  lib.alloc({ out: pointerOut, bytes });
  return Number(pointerOut[0]) as Pointer;
}

export const free = (lib: Rcm, address: Pointer | 0): void => lib.free(address);

/** Host memory that asynchronous copies run from at full speed; see rcm_host_alloc. Throws: E_OOM. */
export function hostAlloc(lib: Rcm, bytes: number): Pointer {
  lib.hostAlloc({ out: pointerOut, bytes });
  return Number(pointerOut[0]) as Pointer;
}

// Small arrays are copied through this buffer; large ones are outside the collector's heap and are passed directly.
const bounce = new Uint8Array(new ArrayBuffer(1000));
// References the bytes of the running copy, so that they are not collected meanwhile.
const held: { bytes: Uint8Array | null } = { bytes: null };

/** Copies host bytes to device memory. */
export function upload(lib: Rcm, to: Pointer, bytes: Uint8Array): void {
  if (bytes.length === 0) return;
  if (bytes.length <= bounce.length) {
    bounce.set(bytes);
    lib.copy({ dst: to, src: address(bounce), bytes: bytes.length, kind: 0 });
    return;
  }
  held.bytes = bytes;
  try {
    lib.copy({ dst: to, src: address(bytes), bytes: bytes.length, kind: 0 });
  } finally {
    held.bytes = null;
  }
}

/** Fills `into` from device memory. */
export function download(lib: Rcm, from: Pointer, into: Uint8Array): void {
  if (into.length === 0) return;
  if (into.length <= bounce.length) {
    lib.copy({ dst: address(bounce), src: from, bytes: into.length, kind: 1 });
    into.set(bounce.subarray(0, into.length));
    return;
  }
  held.bytes = into;
  try {
    lib.copy({ dst: address(into), src: from, bytes: into.length, kind: 1 });
  } finally {
    held.bytes = null;
  }
}

export function memoryStats(lib: Rcm): MemoryStats {
  lib.memoryStats(statsOut);
  const [current, peak, reserved, reservedPeak, allocations, blocks] = Array.from(statsOut, Number);
  return { current, peak, reserved, reservedPeak, allocations, blocks };
}

export interface FileWindow {
  path: string;
  offset: number;
  bytes: number;
}

/** Fills device memory with a window of a file. Throws: E_IO naming the file, E_ARG for a name with NUL. */
export function readFileWindow(lib: Rcm, to: Pointer, { path, offset, bytes }: FileWindow): void {
  if (bytes === 0) return;
  lib.fileRead({ path: cString(path), dst: to, offset, bytes });
}

/** Zero-terminated UTF-8 over an ArrayBuffer that does not move. */
function cString(text: string): Uint8Array {
  if (text.includes("\0")) throw new RcmError("E_ARG", "a path cannot hold NUL", { op: "file_read", got: text });
  const utf8 = new TextEncoder().encode(text);
  const out = new Uint8Array(new ArrayBuffer(utf8.length + 1));
  out.set(utf8);
  return out;
}
