import type { DType } from "../dtype.ts";
import type { AnyOp, Cotangents } from "../op.ts";
import { attentionOp } from "../ops/attention.ts";
import type { Device, Tensor } from "../tensor.ts";
import type { Pass } from "./gemm.ts";
import { compared, noise, rate, relativeL2, timeCalls, type BenchRow, type BenchSetting } from "./time.ts";
import { tangentMatmuls } from "../../ffi/counting.ts";

export interface AttentionShape {
  batch: number;
  heads: number;
  lq: number;
  lk: number;
  /** Head width. */
  dim: number;
}

/** Which of q, k, v carry a tangent. */
export interface AttentionInputs {
  q: boolean;
  k: boolean;
  v: boolean;
}

export const ALL_INPUTS: AttentionInputs = { q: true, k: true, v: true };

/** The shapes of the design's table, and small ones for a CPU. */
export const ATTENTION_SHAPES: Record<"cpu" | "cuda", { shape: AttentionShape; tangents: AttentionInputs }[]> = {
  cuda: (
    [
      [12, 32760, 32760, 128],
      [5, 32760, 32760, 128],
      [12, 32760, 512, 128],
      [16, 4096, 4096, 64],
      [16, 4096, 4096, 128],
    ] as const
  ).map(([heads, lq, lk, dim]) => ({
    shape: { batch: 1, heads, lq, lk, dim },
    tangents: lk === 512 ? { q: true, k: false, v: false } : ALL_INPUTS,
  })),
  cpu: (
    [
      [4, 512, 512, 64],
      [4, 512, 512, 128],
      [4, 512, 77, 128],
    ] as const
  ).map(([heads, lq, lk, dim]) => ({
    shape: { batch: 1, heads, lq, lk, dim },
    tangents: lk === 77 ? { q: true, k: false, v: false } : ALL_INPUTS,
  })),
};

/**
 * FLOP: forward 4 B H Lq Lk K (two matmuls); jvp by the matmuls that its tangents need (six for all three); vjp five.
 */
const flop = (s: AttentionShape, pass: Pass, on: AttentionInputs): number => {
  const matmul = 2 * s.batch * s.heads * s.lq * s.lk * s.dim;
  return matmul * (pass === "fwd" ? 2 : pass === "jvp" ? tangentMatmuls(on.q, on.k, on.v) : 5);
};

const namesOf = (on: AttentionInputs): string => (["q", "k", "v"] as const).filter((n) => on[n]).join(",") || "none";

/** Queries and heads whose errors are measured: f64 is slow, and rows are independent. */
const CHECKED = { heads: 1, queries: 512 };

/** Errors of value and tangent against f64 on the same inputs and device, over the first queries and all keys. */
function errors(
  device: Device,
  { lq: all, lk, dim }: AttentionShape,
  on: AttentionInputs | null,
  dtype: DType,
): Pick<BenchRow, "valueError" | "tangentError"> {
  using _scope = device.scope();
  const lq = Math.min(all, CHECKED.queries);
  const x = [lq, lk, lk].map((rows, i) => noise(device, [1, rows, CHECKED.heads * dim], dtype, 11 + i));
  const [qDot, kDot, vDot] = x.map((t, i) =>
    on && [on.q, on.k, on.v][i] ? noise(device, t.shape, dtype, 14 + i) : null,
  );
  const [q, k, v] = x;
  const run = (as: DType): { y: Float64Array; yDot: Float64Array | null } => {
    const cast = (t: Tensor): Tensor => device.empty(t.shape, as).set(t);
    const p = { heads: CHECKED.heads, scale: null };
    const inputs: [q: Tensor, k: Tensor, v: Tensor] = [cast(q), cast(k), cast(v)];
    if (!on) return { y: attentionOp.forward(inputs, p, false).y.values(), yDot: null };
    const { y, yDot } = attentionOp.jvp(inputs, [qDot && cast(qDot), kDot && cast(kDot), vDot && cast(vDot)], p, false);
    return { y: y.values(), yDot: yDot?.values() ?? null };
  };
  const [got, exact] = [run(dtype), run("f64")];
  return {
    valueError: relativeL2(got.y, exact.y),
    ...(got.yDot && exact.yDot ? { tangentError: relativeL2(got.yDot, exact.yDot) } : {}),
  };
}

export interface AttentionCase {
  shape: AttentionShape;
  pass: Pass;
  /** Inputs with a tangent, of the jvp. */
  tangents: AttentionInputs;
  dtype: DType;
}

/** Times one attention pass on normal q, k, v; the errors of its value and tangent are against f64. */
export function benchAttention(
  { device, timing, ceiling }: BenchSetting,
  { shape: s, pass, tangents, dtype }: AttentionCase,
): BenchRow {
  using _scope = device.scope();
  const width = s.heads * s.dim;
  const [qShape, kvShape] = [[s.batch, s.lq, width], [s.batch, s.lk, width]];
  const q = noise(device, qShape, dtype, 1);
  const [k, v] = [noise(device, kvShape, dtype, 2), noise(device, kvShape, dtype, 3)];
  const inputs: [Tensor, Tensor, Tensor] = [q, k, v];
  const op: AnyOp = attentionOp;
  const p = { heads: s.heads, scale: null };
  let call = (): void => void op.forward(inputs, p, true);
  if (pass === "jvp") {
    const dots = [tangents.q && qShape, tangents.k && kvShape, tangents.v && kvShape].map((shape, i) =>
      shape ? noise(device, shape, dtype, 4 + i) : null,
    );
    call = () => void op.jvp(inputs, dots, p, true);
  } else if (pass === "vjp") {
    const { y, saved } = op.forward(inputs, p, true);
    const yBar = noise(device, qShape, dtype, 7);
    const bar: Cotangents = { need: () => true, put: () => {}, accumulate: (i) => inputs[i] };
    call = () => op.vjp(bar, yBar, inputs, y, saved, p);
  }
  device.resetPeak();
  const ms = timeCalls(device, call, timing);
  const name = `attention ${pass} ${dtype}${pass === "jvp" ? ` tangents ${namesOf(tangents)}` : ""}`;
  const shape = `B${s.batch} H${s.heads} Lq${s.lq} Lk${s.lk} K${s.dim}`;
  const bytesPeak = device.memory().peak;
  const judged = pass === "vjp" || dtype === "f64" ? {} : errors(device, s, pass === "jvp" ? tangents : null, dtype);
  return compared({ name, shape, ms, ...rate({ flop: flop(s, pass, tangents) }, ms), bytesPeak, ...judged }, ceiling);
}
