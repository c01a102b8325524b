import { openblasRate } from "../../ffi/blas.ts";
import type { DType } from "../dtype.ts";
import type { Cotangents } from "../op.ts";
import { linearOp } from "../ops/linear.ts";
import { statDType, type Device, type Tensor } from "../tensor.ts";
import {
  compared,
  fillNoise,
  noise,
  rate,
  timeCalls,
  type BenchRow,
  type BenchSetting,
  type TimeOptions,
} from "./time.ts";

export type Pass = "fwd" | "jvp" | "vjp";
/** y[M,N] = x[M,K] w[N,K]^T. */
export interface GemmShape {
  M: number;
  N: number;
  K: number;
}

/** Times linear layers: forward 2MNK FLOP, value with tangent twice that, both gradients twice that. */
export function benchGemm(
  setting: BenchSetting,
  { shapes, passes, dtype }: { shapes: readonly GemmShape[]; passes: readonly Pass[]; dtype: DType },
): BenchRow[] {
  return shapes.flatMap((s) => passes.map((pass) => compared(gemm(setting, s, pass, dtype), setting.ceiling)));
}

type Timed = Pick<BenchSetting, "device" | "timing">;

function gemm({ device, timing }: Timed, { M, N, K }: GemmShape, pass: Pass, dtype: DType): BenchRow {
  using _scope = device.scope();
  const x = noise(device, [M, K], dtype, 1);
  const w = fillNoise(device.empty([N, K], dtype), 2, 0.02);
  const b = fillNoise(device.empty([N], dtype), 3, 0.02);
  const second = noise(device, [M, pass === "jvp" ? K : N], dtype, 4);
  const [wBar, bBar] = [[N, K], [N]].map((shape) => device.zeros(pass === "vjp" ? shape : [0], statDType(dtype)));
  const bar: Cotangents = { need: () => true, put: () => {}, accumulate: (i) => (i === 1 ? wBar : bBar) };
  const inputs: [Tensor, Tensor, Tensor] = [x, w, b];
  const p = { dtype: null };
  const calls: Record<Pass, () => void> = {
    fwd: () => void linearOp.forward(inputs, p, false),
    jvp: () => void linearOp.jvp(inputs, [second, null, null], p, false),
    vjp: () => linearOp.vjp(bar, second, inputs, second, [], p),
  };
  const ms = timeCalls(device, calls[pass], timing);
  return {
    name: `linear ${pass} ${dtype}`,
    shape: `${M}x${N}x${K}`,
    ms,
    ...rate({ flop: (pass === "fwd" ? 2 : 4) * M * N * K }, ms),
  };
}

/**
 * The matmul rate that everything is compared with, TFLOP/s: on the CPU OpenBLAS (2048^3, f32, with its threads); on a
 * GPU, or without OpenBLAS, this library's forward matmul of `side`^3.
 */
export function matmulCeiling(device: Device, dtype: DType, o: TimeOptions): number {
  const { kind, info } = device.backend;
  const blas = kind === "cpu" ? openblasRate(2048, info.threads) : null;
  if (blas !== null) return blas / 1e12;
  const side = kind === "cuda" ? 8192 : 1024;
  const timing = { ...o, repeats: Math.min(o.repeats, 10) };
  return gemm({ device, timing }, { M: side, N: side, K: side }, "fwd", dtype).tflops as number;
}
