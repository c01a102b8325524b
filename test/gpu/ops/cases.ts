import { attentionOp } from "../../../core/ops/attention.ts";
import { adaLayerNormOp } from "../../../core/ops/ada_layer_norm.ts";
import { gateResidualOp } from "../../../core/ops/gate_residual.ts";
import { layerNormOp } from "../../../core/ops/layer_norm.ts";
import { linearGeluOp } from "../../../core/ops/linear_gelu.ts";
import { linearOp } from "../../../core/ops/linear.ts";
import { patchifyOp } from "../../../core/ops/patchify.ts";
import { rmsNormRopeOp } from "../../../core/ops/rms_norm_rope.ts";
import { sqLossOp } from "../../../core/ops/sq_loss.ts";
import { unpatchifyOp } from "../../../core/ops/unpatchify.ts";
import type { OpCase } from "../../harness/check_op.ts";
import { drawnTensor, entry, rope, type OpCases } from "../../harness/op_cases.ts";

/** Cases at the sizes of the real network, where GPU kernels take other paths than at toy sizes. */

type Norm = Parameters<typeof rmsNormRopeOp.forward>[1];
type Attention = { heads: number; scale: number | null };
const attend = (
  name: string, heads: number, K: number, Lq: number, Lk: number, tangent: number[], batch = 1,
): OpCase<Attention> => {
  const [q, kv] = [[batch, Lq, heads * K], [batch, Lk, heads * K]];
  return {
    name: `${name}, K=${K} Lq=${Lq} Lk=${Lk}`, shapes: [q, kv, kv], params: () => ({ heads, scale: null }), tangent,
  };
};

const WIDTHS = [[1536, 12], [5120, 40]] as const;
/** Samples, rows of each and width where every block goes on to other rows, and to other samples. */
const MANY = [3, 950, 1024] as const;
const VIDEOS = [[1, 16, 4, 30, 52], [2, 8, 3, 6, 10], [2, 3, 2, 4, 14], [1, 18, 2, 6, 8]] as const;
const ORDERS = ["channel_first", "channel_last"] as const;
const PATCH = [1, 2, 2] as const;

export const GPU_CASES: Record<string, OpCases> = {
  attention: entry(attentionOp, [
    ...[64, 128].flatMap((K) => [
      attend("self", 2, K, 300, 300, [0, 1, 2]),
      attend("self", 1, K, 1000, 1000, [0, 1, 2]),
      attend("cross, queries' tangent", 2, K, 300, 77, [0]),
      attend("cross, queries' tangent", 1, K, 1000, 512, [0]),
      attend("cross, all tangents", 2, K, 300, 77, [0, 1, 2]),
    ]),
    attend("two samples", 3, 128, 129, 257, [0, 1, 2], 2),
    attend("whole tiles", 2, 128, 256, 256, [0, 1, 2]),
    attend("keys' tangent", 2, 128, 192, 100, [1]),
    attend("values' tangent", 2, 128, 192, 100, [2]),
    attend("one query", 2, 128, 1, 512, [0]),
    // Where cuDNN is the faster one, if it is there.
    attend("long rows", 1, 64, 2304, 2304, [0, 1, 2]),
    attend("few keys", 1, 128, 8200, 128, [0]),
    // More tiles of queries than a GPU has processors: blocks go on to a second and third one.
    ...[40, 100].map((Lk) => attend("many tiles of queries", 3, 128, 128 * 150, Lk, [0])),
    attend("many tiles of queries", 2, 64, 128 * 160, 130, [0]),
  ]),
  linear: entry(linearOp, [
    {
      name: "256x384 to 512", shapes: [[256, 384], [512, 384], [512]], params: () => ({ dtype: null }), tangent: [0],
      accumulates: [1, 2],
    },
    {
      name: "no tile whole: 2x131x200 to 264", shapes: [[2, 131, 200], [264, 200], [264]],
      params: () => ({ dtype: null }), tangent: [0], accumulates: [1, 2],
    },
    {
      name: "one row", shapes: [[1, 1536], [256, 1536], null], params: () => ({ dtype: null }), tangent: [0],
      accumulates: [1],
    },
    {
      name: "thin: 1200x64 to 64", shapes: [[1200, 64], [64, 64], [64]], params: () => ({ dtype: null }),
      tangent: [0], accumulates: [1, 2],
    },
  ]),
  linear_gelu: entry(linearGeluOp, [
    {
      name: "256x384 to 512", shapes: [[256, 384], [512, 384], [512]], params: () => ({ kind: "gelu_tanh" as const }),
      tangent: [0], accumulates: [1, 2], scale: 0.25,
    },
    {
      name: "no tile whole: 2x131x200 to 264", shapes: [[2, 131, 200], [264, 200], [264]],
      params: () => ({ kind: "silu" as const }), tangent: [0], accumulates: [1, 2], scale: 0.25,
    },
  ]),
  layer_norm: entry(
    layerNormOp,
    [[64, 1536], [64, 5120], [MANY[0] * MANY[1], MANY[2]]].map(([M, D]) => ({
      name: `${M} rows of ${D}`, shapes: [[M, D], [D], [D]], params: () => ({ eps: 1e-6, dtype: null }), tangent: [0],
      accumulates: [1, 2],
    })),
  ),
  ada_layer_norm: entry(
    adaLayerNormOp,
    [[2, 32, 1536], [2, 32, 5120], MANY].map(([B, L, D]) => ({
      name: `${B}x${L} rows of ${D}`, shapes: [[B, L, D], [B, 6, D]],
      params: () => ({ shift: 3, scale: 4, eps: 1e-6, dtype: null }), tangent: [0, 1], accumulates: [1],
      stored: { 1: "stat" as const },
    })),
  ),
  rms_norm_rope: entry(rmsNormRopeOp, [
    {
      name: `${MANY.join("x")}, interleaved`,
      shapes: [MANY, [MANY[2]]],
      params: (d, t) => ({
        heads: 8, group: MANY[2], rope: rope(MANY[1], MANY[2] / 8)(d, t), pairing: "interleaved" as const, eps: 1e-6,
        dtype: null,
      }),
      tangent: [0],
      accumulates: [1],
    },
    ...WIDTHS.flatMap(([D, heads]): OpCase<Norm>[] => [
      {
        name: `group D = ${D}, interleaved`,
        shapes: [[2, 32, D], [D]],
        params: (d, t) => ({
          heads, group: D, rope: rope(32, D / heads)(d, t), pairing: "interleaved" as const, eps: 1e-6, dtype: null,
        }),
        tangent: [0],
        accumulates: [1],
      },
      {
        name: `group K of ${D}, halves`,
        shapes: [[1, 64, D], [D / heads]],
        params: (d, t) => ({
          heads, group: D / heads, rope: rope(64, D / heads)(d, t), pairing: "halves" as const, eps: 1e-6,
          dtype: null,
        }),
        tangent: [0],
        accumulates: [1],
      },
      {
        name: `group D = ${D}, no rope`,
        shapes: [[1, 64, D], [D]],
        params: () => ({ heads, group: D, rope: null, pairing: "interleaved" as const, eps: 1e-6, dtype: null }),
        tangent: [0],
        accumulates: [1],
      },
    ]),
  ]),
  gate_residual: entry(gateResidualOp, [
    ...WIDTHS.map(([D]): OpCase<{ gate: number }> => ({
      name: `gated, 2x32 rows of ${D}`, shapes: [[2, 32, D], [2, 32, D], [2, 6, D]], params: () => ({ gate: 5 }),
      tangent: [0, 1, 2], accumulates: [2], stored: { 2: "stat" },
    })),
    {
      name: "plain, 64 rows of 1536", shapes: [[1, 64, 1536], [1, 64, 1536], null], params: () => ({ gate: 0 }),
      tangent: [0, 1],
    },
  ]),
  // 16 and 8 channels move in packs; of 3 and 18 some or all orders do not.
  patchify: entry(
    patchifyOp,
    VIDEOS.flatMap((video) =>
      ORDERS.map((order) => ({
        name: `video ${video.join("x")}, ${order}`, shapes: [video],
        params: () => ({ patch: PATCH, order, dtype: null }), tangent: [0],
      })),
    ),
  ),
  unpatchify: entry(
    unpatchifyOp,
    VIDEOS.flatMap((video) =>
      ORDERS.map((order) => ({
        name: `video ${video.join("x")}, ${order}`,
        shapes: [[video[0], (video[2] * video[3] * video[4]) / 4, 4 * video[1]]],
        params: () => ({ patch: PATCH, order, dtype: null, shape: video }),
        tangent: [0],
      })),
    ),
  ),
  // One block a sample, several, and more than blocks start at once.
  sq_loss: entry(
    sqLossOp,
    [[2, 2000], [2, 8, 40, 100], [1, 1_500_001]].map((shape) => ({
      name: shape.join("x"),
      shapes: [shape],
      params: (d, t) => ({
        target: drawnTensor(d, shape, t, { seed: 9, stream: 1 }),
        delta: drawnTensor(d, shape, t, { seed: 9, stream: 2 }),
        weight: Float64Array.from({ length: shape[0] }, (_, b) => 1 + b),
      }),
      tangent: [0],
    })),
  ),
};
