import { toArrayBuffer, type Pointer } from "bun:ffi";
import { bind, type Rcm } from "./rcm.gen.ts";
import type { Backend } from "./open.ts";

/**
 * A dry-run backend: it computes nothing, returns fake addresses and counts allocated memory. Copies to the host are
 * zeros.
 */

const KIB = 1024;
const MIB = 1024 * KIB;
const up = (bytes: number, step: number): number => Math.ceil(bytes / step) * step;

/** Real size of an allocation of `bytes`: size classes of the CPU allocator, or granularity of the CUDA one. */
function blockBytes(kind: "cpu" | "cuda", bytes: number): number {
  if (kind === "cuda") return bytes >= 32 * MIB ? up(bytes, 2 * MIB) : up(Math.max(bytes, 1), 512);
  if (bytes <= 4096) return up(Math.max(bytes, 1), 256);
  const rounded = up(bytes, 2 ** (Math.floor(Math.log2(bytes)) - 3));
  return bytes >= 2 * MIB ? up(rounded, 2 * MIB) : rounded;
}

/** Bytes per element by dtype code. */
const WIDTH = [4, 2, 2, 8];

/** A dry-run backend with the memory statistics of the real one after the same calls, up to workspaces of a few MiB. */
export function countingBackend(kind: "cpu" | "cuda"): Backend {
  const live = new Map<number, number>();
  let [next, current, peak, allocations] = [1 << 20, 0, 0, 0];
  const grow = (bytes: number): void => {
    current += bytes;
    peak = Math.max(peak, current);
  };
  /** Workspace that a call allocates and frees. */
  const during = (bytes: number): void => {
    grow(blockBytes(kind, bytes));
    current -= blockBytes(kind, bytes);
  };
  const lib: Record<string, unknown> = {};
  for (const name of Object.keys(bind({}))) lib[name] = () => {};
  const overrides: Partial<Rcm> = {
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
    // Without a buffer for the pre-activation the GPU allocates a workspace.
    const hidden = (a: { h: number; M: number; N: number; yDtype: number }): void => {
      if (a.h === 0) during(a.M * a.N * WIDTH[a.yDtype]);
    };
    overrides.linearGeluFwd = hidden;
    overrides.linearGeluJvp = hidden;
  }
  return {
    lib: { ...lib, ...overrides } as unknown as Rcm,
    kind,
    path: "",
    info: { backend: kind, device: "a device that only counts", isa: "", best_isa: "", threads: 1, blas: "" },
  };
}

/** Number of matmuls of an attention tangent: two for the primal, one for each of q', k', v' and one for (P.S') v. */
export const tangentMatmuls = (q: boolean, k: boolean, v: boolean): number =>
  2 + Number(q) + Number(k) + Number(q || k) + Number(v);

/**
 * Wraps a backend to count the FLOP of every matmul and attention: 2 per multiply-add; attention forward 4 B H Lq Lk K,
 * its vjp 2.5x, its tangent 3x or, with `exact`, by the tangents given. Captured calls count at each launch.
 */
export function counted(base: Backend, exact = false): { backend: Backend; take: () => number } {
  const { lib } = base;
  let flop = 0;
  const recordings = new Map<number, number>();
  let before = 0;
  type Matmul = Record<"M" | "N" | "K", number>;
  const linear = <A extends Matmul>(f: (a: A) => void, passes: (a: A) => number) => (a: A): void => {
    flop += 2 * a.M * a.N * a.K * passes(a);
    f(a);
  };
  type Scores = Record<"B" | "H" | "Lq" | "Lk" | "K", number>;
  const attention = <A extends Scores>(f: (a: A) => void, factor: (a: A) => number) => (a: A): void => {
    flop += factor(a) * 4 * a.B * a.H * a.Lq * a.Lk * a.K;
    f(a);
  };
  const bars = (a: { xBar: number; wBar: number }): number => Number(a.xBar !== 0) + Number(a.wBar !== 0);
  const tangents = (a: { qDot: number; kDot: number; vDot: number }): number =>
    exact ? tangentMatmuls(a.qDot !== 0, a.kDot !== 0, a.vDot !== 0) / 2 : 3;
  const counting: Rcm = {
    ...lib,
    linearFwd: linear(lib.linearFwd, () => 1),
    linearJvp: linear(lib.linearJvp, () => 2),
    linearVjp: linear(lib.linearVjp, bars),
    linearGeluFwd: linear(lib.linearGeluFwd, () => 1),
    linearGeluJvp: linear(lib.linearGeluJvp, () => 2),
    linearGeluVjp: linear(lib.linearGeluVjp, bars),
    attentionFwd: attention(lib.attentionFwd, () => 1),
    attentionJvp: attention(lib.attentionJvp, tangents),
    attentionVjp: attention(lib.attentionVjp, () => 2.5),
    graphBegin: (memory) => {
      before = flop;
      lib.graphBegin(memory);
    },
    graphEnd: (out) => {
      lib.graphEnd(out);
      recordings.set(Number((out as BigInt64Array)[0]), flop - before);
      flop = before;
    },
    graphLaunch: (graph) => {
      flop += recordings.get(graph) ?? 0;
      lib.graphLaunch(graph);
    },
  };
  return {
    backend: { ...base, lib: counting },
    take: () => {
      const n = flop;
      flop = 0;
      return n;
    },
  };
}

/** Descriptions of calls, computed from their arguments, by function. */
export type Describers<R> = { [Name in keyof Rcm]?: (a: Parameters<Rcm[Name]>[0]) => R };

/** Wraps a backend so that `on` intercepts, and runs, every call of the described functions. */
export function observed<R>(
  base: Backend, describers: Describers<R>, on: (describe: () => R, run: () => void) => void,
): Backend {
  const lib: Rcm = { ...base.lib };
  const observe = <A>(call: (a: A) => void, describe: (a: A) => R) => (a: A): void =>
    on(() => describe(a), () => call(a));
  for (const name of Object.keys(describers) as (keyof Rcm)[]) {
    // The two functions of one name take the same arguments, which the type of a union of names does not say.
    Object.assign(lib, { [name]: observe<never>(base.lib[name], describers[name] as (a: never) => R) });
  }
  return { ...base, lib };
}
