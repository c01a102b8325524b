import { openblasRate } from "../../ffi/blas.ts";
import { dtypeCode, type DType } from "../dtype.ts";
import { statDType, type Device } from "../tensor.ts";
import { beside, noise, rate, timeCalls, type BenchRow, type TimeOptions } from "./time.ts";

export type Pass = "fwd" | "jvp" | "vjp";
/** y[M,N] = x[M,K] w[N,K]^T. */
export interface GemmShape {
  M: number;
  N: number;
  K: number;
}

/** Times linear layers: forward 2MNK FLOP, value with tangent twice that, both gradients twice that. */
export function benchGemm(device: Device, shapes: readonly GemmShape[], passes: readonly Pass[], dtype: DType, ceiling: number | null, o: TimeOptions): BenchRow[] {
  return shapes.flatMap((s) => passes.map((pass) => beside(gemm(device, s, pass, dtype, o), ceiling)));
}

function gemm(device: Device, { M, N, K }: GemmShape, pass: Pass, dtype: DType, o: TimeOptions): BenchRow {
  using _scope = device.scope();
  const { lib } = device;
  const code = dtypeCode(dtype);
  const [x, w, b] = [noise(device, [M, K], dtype, 1), noise(device, [N, K], dtype, 2, 0.02), noise(device, [N], dtype, 3, 0.02)];
  const y = device.empty([M, N], dtype);
  const second = pass === "jvp" ? noise(device, [M, K], dtype, 4) : noise(device, [M, N], dtype, 4);
  const out = pass === "jvp" ? device.empty([M, N], dtype) : device.empty([M, K], dtype);
  const stat = statDType(dtype);
  const wBar = pass === "vjp" ? device.zeros([N, K], stat) : null;
  const bBar = pass === "vjp" ? device.zeros([N], stat) : null;
  const calls: Record<Pass, () => void> = {
    fwd: () => lib.linearFwd({
      x: x.ptr, w: w.ptr, b: b.ptr, y: y.ptr, M, N, K, xDtype: code, wDtype: code, yDtype: code,
    }),
    jvp: () => lib.linearJvp({
      x: x.ptr, w: w.ptr, b: b.ptr, xDot: second.ptr, y: y.ptr, yDot: out.ptr, M, N, K, xDtype: code, wDtype: code,
      yDtype: code,
    }),
    vjp: () => lib.linearVjp({
      x: x.ptr, w: w.ptr, yBar: second.ptr, xBar: out.ptr, wBar: wBar?.ptr ?? 0, bBar: bBar?.ptr ?? 0, M, N, K,
      xDtype: code, wDtype: code, yDtype: code,
    }),
  };
  const ms = timeCalls(device, calls[pass], o);
  return { name: `linear ${pass} ${dtype}`, shape: `${M}x${N}x${K}`, ms, ...rate({ flop: (pass === "fwd" ? 2 : 4) * M * N * K }, ms) };
}

/**
 * The matmul rate that everything is compared with, TFLOP/s: on the CPU OpenBLAS itself (2048^3, f32; its own threads), else, and
 * where it is not installed, this library's own forward matmul of `side`^3.
 */
export function matmulCeiling(device: Device, dtype: DType, o: TimeOptions): number {
  const { kind, info } = device.backend;
  const blas = kind === "cpu" ? openblasRate(2048, info.threads) : null;
  if (blas !== null) return blas / 1e12;
  const side = kind === "cuda" ? 8192 : 1024;
  return gemm(device, { M: side, N: side, K: side }, "fwd", dtype, { ...o, repeats: Math.min(o.repeats, 10) }).tflops as number;
}
