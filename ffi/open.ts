import { dlopen } from "bun:ffi";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { env } from "./env.ts";
import { RcmError } from "./error.ts";
import { ABI_HASH, bind, SYMBOLS, type Rcm } from "./rcm.gen.ts";
import type { Symbols } from "./call.ts";

/** "auto": a GPU if one works, else the CPU. */
export type DeviceName = "auto" | "cpu" | "cuda";

export interface DeviceChoice {
  device: DeviceName;
  /** GPU index. */
  index?: number;
  /** Host threads; 0 or absent: all that the process may use. */
  threads?: number;
}

/** What rcm_runtime_info reports. */
export interface RuntimeInfo {
  backend: string;
  device: string;
  isa: string;
  best_isa: string;
  threads: number;
  blas: string;
  /** "cuDNN 9.19.0", or "none" with the reason; GPUs only. */
  cudnn?: string;
}

export interface Backend {
  lib: Rcm;
  kind: "cpu" | "cuda";
  path: string;
  info: RuntimeInfo;
}

/** Instruction sets that the CPU library is built for, each a superset of those before it. */
const ISAS = ["baseline", "avx2", "avx512"];

/** Folders searched for the native libraries, first match wins. RCM_LIB_DIR replaces them all. */
export function libraryFolders(): string[] {
  const named = env.libraryFolder;
  return named ? [named] : [join(import.meta.dir, "../build/lib"), join(dirname(process.execPath), "lib")];
}

function find(file: string): string | null {
  return libraryFolders().map((f) => join(f, file)).find((p) => existsSync(p)) ?? null;
}

/** Loads a library and checks that it was built from the same header as these bindings. Throws: E_BACKEND. */
export function openLibrary(path: string): Rcm {
  let symbols: Symbols;
  try {
    symbols = dlopen(path, SYMBOLS as unknown as Parameters<typeof dlopen>[1]).symbols as unknown as Symbols;
  } catch (cause) {
    throw new RcmError("E_BACKEND", `cannot load ${path}: ${(cause as Error).message}; run \`npm run build\``, {
      op: "open",
      cause,
    });
  }
  const lib = bind(symbols);
  const hash = new BigInt64Array(new ArrayBuffer(8));
  lib.abiHash(hash);
  if (Number(hash[0]) !== ABI_HASH) {
    throw new RcmError("E_BACKEND", `${path} was built from another rcm.h; run \`npm run build\``, {
      op: "open",
      want: ABI_HASH,
      got: Number(hash[0]),
    });
  }
  return lib;
}

function runtimeInfo(lib: Rcm): RuntimeInfo {
  const out = new Uint8Array(new ArrayBuffer(4096));
  lib.runtimeInfo({ out, capacity: out.length });
  return JSON.parse(new TextDecoder().decode(out.subarray(0, out.indexOf(0))));
}

function start(lib: Rcm, path: string, kind: "cpu" | "cuda", { index = 0, threads = 0 }: DeviceChoice): Backend {
  lib.init({ deviceIndex: index, threads });
  return { lib, kind, path, info: runtimeInfo(lib) };
}

/**
 * Null if the library does not load or finds no usable GPU. A stale library is an error: a GPU machine must not
 * silently fall back to the CPU.
 */
function tryCuda(path: string, choice: DeviceChoice): Backend | null {
  try {
    return start(openLibrary(path), path, "cuda", choice);
  } catch (error) {
    const unusable = error instanceof RcmError && error.code === "E_BACKEND" && error.want !== ABI_HASH;
    if (unusable) return null;
    throw error;
  }
}

/** Opens the best built variant that the processor supports; RCM_ISA selects another. */
function openCpu(choice: DeviceChoice): Backend {
  const path = find("librcm_cpu.so");
  if (!path) throw missing("librcm_cpu.so");
  const baseline = openLibrary(path);
  const best = ISAS.indexOf(runtimeInfo(baseline).best_isa);
  const runs = ISAS.slice(0, Math.max(best, 0) + 1);
  const variant = (isa: string): string => (isa === "baseline" ? path : join(dirname(path), `librcm_cpu_${isa}.so`));
  const forced = env.isa;
  if (forced && !runs.includes(forced)) {
    throw new RcmError("E_BACKEND", "RCM_ISA names no instruction set of this processor", {
      op: "open",
      want: runs.join(" | "),
      got: forced,
    });
  }
  if (forced && !existsSync(variant(forced))) throw missing(`librcm_cpu_${forced}.so`);
  const chosen = variant(forced || (runs.findLast((isa) => existsSync(variant(isa))) as string));
  return start(chosen === path ? baseline : openLibrary(chosen), chosen, "cpu", choice);
}

/**
 * Opens the backend of a device choice. "auto" uses CUDA if its library exists and starts, else the CPU.
 * Throws: E_BACKEND naming the folders searched.
 */
export function openBackend(choice: DeviceChoice): Backend {
  if (choice.device === "cpu") return openCpu(choice);
  const path = find("librcm_cuda.so");
  if (choice.device === "auto") return (path && tryCuda(path, choice)) || openCpu(choice);
  if (!path) throw missing("librcm_cuda.so");
  return start(openLibrary(path), path, "cuda", choice);
}

function missing(file: string): RcmError {
  return new RcmError("E_BACKEND", `${file} not found in ${libraryFolders().join(", ")}; run \`npm run build\``, {
    op: "open",
  });
}
