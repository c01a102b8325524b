import { toArrayBuffer, type Pointer } from "bun:ffi";
import { bind, type Rcm } from "./rcm.gen.ts";
import type { Backend } from "./open.ts";

/** A library that computes nothing: it hands out addresses and counts the memory behind them. What it copies to the host is zero. */

const KIB = 1024;
const MIB = 1024 * KIB;
const up = (bytes: number, step: number): number => Math.ceil(bytes / step) * step;

/** What a block of `bytes` costs: size classes of csrc/cpu/memory.cpp, or the grain of csrc/cuda/memory.cu. */
function blockBytes(kind: "cpu" | "cuda", bytes: number): number {
  if (kind === "cuda") return bytes >= 32 * MIB ? up(bytes, 2 * MIB) : up(Math.max(bytes, 1), 512);
  if (bytes <= 4096) return up(Math.max(bytes, 1), 256);
  const rounded = up(bytes, 2 ** (Math.floor(Math.log2(bytes)) - 3));
  return bytes >= 2 * MIB ? up(rounded, 2 * MIB) : rounded;
}

/** Bytes per element by dtype code. */
const WIDTH = [4, 2, 2, 8];

/** A backend whose memory statistics are those of the real one after the same calls, workspaces of a few MiB apart. */
export function countingBackend(kind: "cpu" | "cuda"): Backend {
  const live = new Map<number, number>();
  let [next, current, peak, allocations] = [1 << 20, 0, 0, 0];
  const grow = (bytes: number): void => {
    current += bytes;
    peak = Math.max(peak, current);
  };
  /** Memory that a call takes and gives back by itself. */
  const during = (bytes: number): void => {
    grow(blockBytes(kind, bytes));
    current -= blockBytes(kind, bytes);
  };
  const lib: Record<string, unknown> = {};
  for (const name of Object.keys(bind({}))) lib[name] = () => {};
  const own: Partial<Rcm> = {
    lastError: () => "",
    alloc({ out, bytes }) {
      const size = blockBytes(kind, bytes);
      live.set(next, size);
      (out as BigInt64Array)[0] = BigInt(next);
      next += size;
      allocations++;
      grow(size);
    },
    free(address) {
      current -= live.get(address) ?? 0;
      live.delete(address);
    },
    memoryStats(out) {
      (out as BigInt64Array).set([current, peak, current, peak, allocations, live.size].map(BigInt));
    },
    memoryResetPeak() {
      peak = current;
    },
    copy({ dst, bytes, kind: direction }) {
      if (direction === 1) new Uint8Array(toArrayBuffer(dst as number as Pointer, 0, bytes)).fill(0);
    },
  };
  if (kind === "cuda") {
    // Without a buffer for the value before the activation the GPU takes one of its own.
    const hidden = (a: { h: number; M: number; N: number; yDtype: number }): void => {
      if (a.h === 0) during(a.M * a.N * WIDTH[a.yDtype]);
    };
    own.linearGeluFwd = hidden;
    own.linearGeluJvp = hidden;
  }
  return { lib: { ...lib, ...own } as unknown as Rcm, kind, path: "", info: { backend: kind, device: "a device that only counts", isa: "", best_isa: "", threads: 1, blas: "" } };
}
