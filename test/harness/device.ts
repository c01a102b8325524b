import { describe, test } from "bun:test";
import { RcmError } from "../../core/error.ts";
import { Device } from "../../core/tensor.ts";
import { ABI_HASH } from "../../ffi/rcm.gen.ts";

let shared: Device | null = null;

/** One CPU device for all tests of a process. */
export const cpu = (): Device => (shared ??= Device.open({ device: "cpu" }));

/** Lives on globalThis, so that a process opens the GPU once and says once why there is none. */
const state = globalThis as { rcmGpu?: { device: Device | null } };

/**
 * One GPU device for all tests of a process; null, with the reason printed once, when the library or the GPU is
 * missing. A library built from another header is an error, never a skip.
 */
export function cuda(): Device | null {
  if (state.rcmGpu) return state.rcmGpu.device;
  try {
    state.rcmGpu = { device: Device.open({ device: "cuda" }) };
  } catch (error) {
    if (!(error instanceof RcmError) || error.code !== "E_BACKEND" || error.want === ABI_HASH) throw error;
    state.rcmGpu = { device: null };
    console.warn(`skipped: gpu: ${error.message}`);
  }
  return state.rcmGpu.device;
}

export type TestFunction = (name: string, body: () => unknown, timeout?: number) => void;

/** The GPU tier: its device, and `test` there or `test.skip` where there is none. */
export function gpuTier(): { device: () => Device; test: TestFunction } {
  const found = cuda();
  return { device: () => found as Device, test: (found ? test : test.skip) as TestFunction };
}

/** Declares the same tests for the CPU and for the GPU, the latter skipped where there is none. */
export function onEachDevice(body: (device: () => Device, test: TestFunction) => void): void {
  describe("cpu", () => body(cpu, test as TestFunction));
  const gpu = gpuTier();
  describe("gpu", () => body(gpu.device, gpu.test));
}
