import { ptr } from "bun:ffi";
import type { Rcm } from "./rcm.gen.ts";

export interface MemoryStats {
  /** Bytes in use and their peak. */
  current: number;
  peak: number;
  /** Bytes held from the system, with cached blocks, and their peak. */
  reserved: number;
  reservedPeak: number;
  /** Allocations so far, and blocks in use now. */
  allocations: number;
  blocks: number;
}

// Both are built over a buffer that exists first: a small typed array of its own may be moved by the collector.
const pointerOut = new BigInt64Array(new ArrayBuffer(8));
const statsOut = new BigInt64Array(new ArrayBuffer(48));

const address = (view: Uint8Array): number => ptr(view) as unknown as number;

/** Allocates device memory. Throws: E_OOM. */
export function alloc(lib: Rcm, bytes: number): number {
  lib.alloc(pointerOut, bytes);
  return Number(pointerOut[0]);
}

export const free = (lib: Rcm, address: number): void => lib.free(address);

/** Bytes whose backing cannot move during a call. */
function pinned(bytes: Uint8Array): Uint8Array {
  if (bytes.length > 1000) return bytes;
  const copy = new Uint8Array(new ArrayBuffer(bytes.length));
  copy.set(bytes);
  return copy;
}

export function upload(lib: Rcm, to: number, bytes: Uint8Array): void {
  if (bytes.length > 0) lib.copy(to, address(pinned(bytes)), bytes.length, 0);
}

export function download(lib: Rcm, from: number, into: Uint8Array): void {
  if (into.length === 0) return;
  const target = pinned(into);
  lib.copy(address(target), from, into.length, 1);
  if (target !== into) into.set(target);
}

export function memoryStats(lib: Rcm): MemoryStats {
  lib.memoryStats(statsOut);
  const [current, peak, reserved, reservedPeak, allocations, blocks] = Array.from(statsOut, Number);
  return { current, peak, reserved, reservedPeak, allocations, blocks };
}
