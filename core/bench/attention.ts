import type { Pointer } from "../../ffi/call.ts";
import { dtypeCode, type DType } from "../dtype.ts";
import { attentionOp } from "../ops/attention.ts";
import { statDType, type Device, type Tensor } from "../tensor.ts";
import type { Pass } from "./gemm.ts";
import { beside, noise, rate, relativeL2, timeCalls, type BenchRow, type TimeOptions } from "./time.ts";
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
  cuda: ([[12, 32760, 32760, 128], [5, 32760, 32760, 128], [12, 32760, 512, 128], [16, 4096, 4096, 64], [16, 4096, 4096, 128]] as const).map(([heads, lq, lk, dim]) => ({
    shape: { batch: 1, heads, lq, lk, dim }, tangents: lk === 512 ? { q: true, k: false, v: false } : ALL_INPUTS,
  })),
  cpu: ([[4, 512, 512, 64], [4, 512, 512, 128], [4, 512, 77, 128]] as const).map(([heads, lq, lk, dim]) => ({
    shape: { batch: 1, heads, lq, lk, dim }, tangents: lk === 77 ? { q: true, k: false, v: false } : ALL_INPUTS,
  })),
};

/** FLOP counted: forward 4 B H Lq Lk K (two matmuls); the tangent by the matmuls its inputs ask for (all three: six); the vjp five. */
const flop = (s: AttentionShape, pass: Pass, on: AttentionInputs): number => {
  const matmul = 2 * s.batch * s.heads * s.lq * s.lk * s.dim;
  return matmul * (pass === "fwd" ? 2 : pass === "jvp" ? tangentMatmuls(on.q, on.k, on.v) : 5);
};

const namesOf = (on: AttentionInputs): string => (["q", "k", "v"] as const).filter((n) => on[n]).join(",") || "none";

/** Queries and heads whose errors are looked at: f64 takes its time, and rows do not depend on each other. */
const CHECKED = { heads: 1, queries: 512 };

/** Errors of value and tangent beside f64 on the same inputs and device, over some of the queries and all keys. */
function errors(device: Device, { lq: all, lk, dim }: AttentionShape, on: AttentionInputs | null, dtype: DType): Pick<BenchRow, "valueError" | "tangentError"> {
  using _scope = device.scope();
  const lq = Math.min(all, CHECKED.queries);
  const x = [lq, lk, lk].map((rows, i) => noise(device, [1, rows, CHECKED.heads * dim], dtype, 11 + i));
  const [qDot, kDot, vDot] = x.map((t, i) => (on && [on.q, on.k, on.v][i] ? noise(device, t.shape, dtype, 14 + i) : null));
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
  return { valueError: relativeL2(got.y, exact.y), ...(got.yDot && exact.yDot ? { tangentError: relativeL2(got.yDot, exact.yDot) } : {}) };
}

/** Times one attention pass on normal q, k, v, and says how far its value and tangent are from f64. */
export function benchAttention(device: Device, s: AttentionShape, pass: Pass, tangents: AttentionInputs, dtype: DType, ceiling: number | null, o: TimeOptions): BenchRow {
  using _scope = device.scope();
  const { lib } = device;
  const [code, width, scale] = [dtypeCode(dtype), s.heads * s.dim, 1 / Math.sqrt(s.dim)];
  const [qShape, kvShape] = [[s.batch, s.lq, width], [s.batch, s.lk, width]];
  const [q, k, v] = [qShape, kvShape, kvShape].map((shape, i) => noise(device, shape, dtype, 1 + i));
  const o_ = device.empty(qShape, dtype);
  const lse = device.empty([s.batch, s.heads, s.lq], statDType(dtype));
  const common = {
    q: q.ptr, k: k.ptr, v: v.ptr, o: o_.ptr, lse: lse.ptr, strides: 0, B: s.batch, H: s.heads, Lq: s.lq, Lk: s.lk,
    K: s.dim, Kv: s.dim, scale, dtype: code,
  };
  const forward = (): void => lib.attentionFwd(common);
  let call = forward;
  if (pass === "jvp") {
    const drawn = (wanted: boolean, shape: number[], stream: number): Pointer | 0 =>
      wanted ? noise(device, shape, dtype, stream).ptr : 0;
    const qDot = drawn(tangents.q, qShape, 4);
    const kDot = drawn(tangents.k, kvShape, 5);
    const vDot = drawn(tangents.v, kvShape, 6);
    const dot = device.empty(qShape, dtype);
    call = () => lib.attentionJvp({ ...common, qDot, kDot, vDot, oDot: dot.ptr });
  } else if (pass === "vjp") {
    forward();
    const bar = noise(device, qShape, dtype, 7);
    const [bq, bk, bv] = [qShape, kvShape, kvShape].map((shape) => device.empty(shape, dtype));
    call = () => lib.attentionVjp({ ...common, oBar: bar.ptr, qBar: bq.ptr, kBar: bk.ptr, vBar: bv.ptr });
  }
  const ms = timeCalls(device, call, o);
  const name = `attention ${pass} ${dtype}${pass === "jvp" ? ` tangents ${namesOf(tangents)}` : ""}`;
  const shape = `B${s.batch} H${s.heads} Lq${s.lq} Lk${s.lk} K${s.dim}`;
  const bytesPeak = device.memory().current;
  const judged = pass === "vjp" || dtype === "f64" ? {} : errors(device, s, pass === "jvp" ? tangents : null, dtype);
  return beside({ name, shape, ms, ...rate({ flop: flop(s, pass, tangents) }, ms), bytesPeak, ...judged }, ceiling);
}
