import { dlopen } from "bun:ffi";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { RcmError } from "./error.ts";
import { ABI_HASH, bind, SYMBOLS, type Rcm } from "./rcm.gen.ts";
import type { Symbols } from "./call.ts";

export interface DeviceChoice {
  device: "auto" | "cpu" | "cuda";
  /** GPU index. */
  index?: number;
  /** Host threads; 0 or absent: all the process may use. */
  threads?: number;
}

/** What rcm_runtime_info tells. */
export interface RuntimeInfo {
  backend: string;
  device: string;
  isa: string;
  best_isa: string;
  threads: number;
  blas: string;
}

export interface Backend {
  lib: Rcm;
  kind: "cpu" | "cuda";
  path: string;
  info: RuntimeInfo;
}

/** Folders searched for the native libraries, first match wins. */
export function libraryFolders(): string[] {
  const here = join(import.meta.dir, "../build/lib");
  return [process.env.RCM_LIB_DIR, here, join(dirname(process.execPath), "lib")].filter((f): f is string => Boolean(f));
}

function find(file: string): string | null {
  return libraryFolders().map((f) => join(f, file)).find((p) => existsSync(p)) ?? null;
}

/** Loads one library file and checks that it was built from the header these bindings were generated from. */
export function openLibrary(path: string): Rcm {
  let symbols: Symbols;
  try {
    symbols = dlopen(path, SYMBOLS as unknown as Parameters<typeof dlopen>[1]).symbols as unknown as Symbols;
  } catch (cause) {
    throw new RcmError("E_BACKEND", `cannot load ${path}: ${(cause as Error).message}; run \`npm run build\``, { op: "open", cause });
  }
  const lib = bind(symbols);
  const hash = new BigInt64Array(new ArrayBuffer(8));
  lib.abiHash(hash);
  if (Number(hash[0]) !== ABI_HASH) {
    throw new RcmError("E_BACKEND", `${path} was built from another rcm.h; run \`npm run build\``, { op: "open", want: ABI_HASH, got: Number(hash[0]) });
  }
  return lib;
}

function runtimeInfo(lib: Rcm): RuntimeInfo {
  const out = new Uint8Array(new ArrayBuffer(4096));
  lib.runtimeInfo(out, out.length);
  return JSON.parse(new TextDecoder().decode(out.subarray(0, out.indexOf(0))));
}

function openAt(path: string, kind: "cpu" | "cuda", { index = 0, threads = 0 }: DeviceChoice): Backend {
  const lib = openLibrary(path);
  lib.init(index, threads);
  return { lib, kind, path, info: runtimeInfo(lib) };
}

/**
 * Opens the backend of a device choice. "auto" takes CUDA when its library is there and starts, else the CPU. The CPU
 * library comes in variants; the best one the processor runs is taken (RCM_ISA forces one).
 * Throws: E_BACKEND naming the folders searched.
 */
export function openBackend(choice: DeviceChoice): Backend {
  if (choice.device !== "cpu") {
    const path = find("librcm_cuda.so");
    if (path && choice.device === "cuda") return openAt(path, "cuda", choice);
    if (path) {
      try {
        return openAt(path, "cuda", choice);
      } catch (error) {
        if (!(error instanceof RcmError) || error.code !== "E_BACKEND") throw error;
      }
    }
    if (choice.device === "cuda") throw missing("librcm_cuda.so");
  }
  const baseline = find("librcm_cpu.so");
  if (!baseline) throw missing("librcm_cpu.so");
  const isa = process.env.RCM_ISA ?? runtimeInfo(openLibrary(baseline)).best_isa;
  const variant = isa === "baseline" ? baseline : join(dirname(baseline), `librcm_cpu_${isa}.so`);
  return openAt(existsSync(variant) ? variant : baseline, "cpu", choice);
}

function missing(file: string): RcmError {
  return new RcmError("E_BACKEND", `${file} not found in ${libraryFolders().join(", ")}; run \`npm run build\``, { op: "open" });
}
