import type { DType } from "../../core/dtype.ts";
import type { AnyOp, Inputs, Op } from "../../core/op.ts";
import { activationOp } from "../../core/ops/activation.ts";
import { adaLayerNormOp } from "../../core/ops/ada_layer_norm.ts";
import { addModulationOp } from "../../core/ops/add_modulation.ts";
import { addOp } from "../../core/ops/add.ts";
import { attentionOp } from "../../core/ops/attention.ts";
import { crossEntropyOp } from "../../core/ops/cross_entropy.ts";
import { gateResidualOp } from "../../core/ops/gate_residual.ts";
import { layerNormOp } from "../../core/ops/layer_norm.ts";
import { lincombOp } from "../../core/ops/lincomb.ts";
import { linearGeluOp } from "../../core/ops/linear_gelu.ts";
import { linearOp } from "../../core/ops/linear.ts";
import { patchifyOp } from "../../core/ops/patchify.ts";
import { rmsNormRopeOp } from "../../core/ops/rms_norm_rope.ts";
import { sqLossOp } from "../../core/ops/sq_loss.ts";
import { timestepEmbedOp } from "../../core/ops/timestep_embed.ts";
import { unpatchifyOp } from "../../core/ops/unpatchify.ts";
import { statDType, type Device, type Tensor } from "../../core/tensor.ts";
import type { OpCase } from "./check_op.ts";
import { cpu } from "./device.ts";

/** The test cases of every op of core/ops: regular and odd shapes, size one, and without optional inputs. */
export interface OpCases {
  op: AnyOp;
  cases: OpCase[];
  /**
   * Groups of inputs whose dtype (f32, bf16, f16) may differ from that of the rest; inputs of a group share it. Any
   * other mix is E_DTYPE, as is f64 with another dtype.
   */
  mixes?: number[][];
  /** Inputs of the first case whose shape no other input or parameter constrains. */
  anyShape?: number[];
}

export const entry = <I extends Inputs, P, S extends readonly Tensor[]>(
  op: Op<I, P, S>, cases: OpCase<NoInfer<P>>[], rules: Pick<OpCases, "mixes" | "anyShape"> = {},
): OpCases => ({ op, cases, ...rules });

/** Normal values drawn by the CPU library, so that every device gets the same ones. */
function drawn(shape: readonly number[], seed: number, stream: number): Float64Array {
  using _scope = cpu().scope();
  return cpu().randn(shape, "f64", seed, stream).values();
}
/** Normal values that every dtype represents exactly, so that runs in all dtypes get the same ones. */
export function drawnTensor(
  device: Device, shape: readonly number[], dtype: DType, key: { seed: number; stream: number },
): Tensor {
  const values = drawn(shape, key.seed, key.stream).map((v) => Math.round(16 * v) / 16);
  return device.fromValues(values, shape, dtype);
}

export const rope = (L: number, K: number) => (device: Device, dtype: DType) => {
  const angles = drawn([L, K / 2], 5, 5);
  const up = (f: (v: number) => number) => device.fromValues(angles.map(f), [L, K / 2], statDType(dtype));
  return { cos: up(Math.cos), sin: up(Math.sin) };
};

export const OP_CASES: Record<string, OpCases> = {
  add: entry(addOp, [
    { name: "3x5", shapes: [[3, 5], [3, 5]], params: () => null, tangent: [0, 1] },
    { name: "one tangent", shapes: [[7], [7]], params: () => null, tangent: [1] },
  ]),
  lincomb: entry(lincombOp, [
    {
      name: "three terms, coefficients with tangents", shapes: [[3, 2, 5], [3, 2, 5], [3, 2, 5]], tangent: [0, 2],
      params: () => ({
        coef: [{ value: Float64Array.of(0.3, -1, 2) }, { value: 0.7 }, { value: Float64Array.of(1, 1.5, -0.25) }],
      }),
    },
    {
      name: "a coefficient per frame, one per sample, a number", shapes: [[2, 3, 4], [2, 3, 4], [2, 3, 4]],
      tangent: [0, 1],
      params: () => ({
        coef: [
          { value: Float64Array.of(0.3, -1, 2, 0.5, -0.25, 1) },
          { value: Float64Array.of(1, -2) },
          { value: 0.7 },
        ],
      }),
    },
    { name: "one term, one value", shapes: [[1, 1]], tangent: [0], params: () => ({ coef: [{ value: -2 }] }) },
    {
      name: "long rows", shapes: [[2, 5001], [2, 5001]], tangent: [0, 1],
      params: () => ({ coef: [{ value: 2 }, { value: Float64Array.of(-1, 3) }] }),
    },
  ]),
  activation: entry(activationOp, (["gelu_tanh", "gelu_erf", "silu", "tanh"] as const).flatMap((kind) => [
    { name: kind, shapes: [[5, 7]], params: () => ({ kind }), tangent: [0], scale: 2 },
    { name: `${kind}, one`, shapes: [[1]], params: () => ({ kind }), tangent: [0] },
  ]), { mixes: [[0]], anyShape: [0] }),
  linear: entry(linearOp, [
    {
      name: "5x7 to 3", shapes: [[5, 7], [3, 7], [3]], params: () => ({ dtype: null }), tangent: [0],
      accumulates: [1, 2],
    },
    {
      name: "no bias, batched", shapes: [[2, 3, 4], [6, 4], null], params: () => ({ dtype: null }), tangent: [0],
      accumulates: [1],
    },
    { name: "one", shapes: [[1, 1], [1, 1], [1]], params: () => ({ dtype: null }), tangent: [0], accumulates: [1, 2] },
    {
      name: "many rows", shapes: [[417, 33], [19, 33], [19]], params: () => ({ dtype: null }), tangent: [0],
      accumulates: [1, 2],
    },
  ], { mixes: [[0], [1, 2]] }),
  linear_gelu: entry(linearGeluOp, [
    {
      name: "5x7 to 3", shapes: [[5, 7], [3, 7], [3]], params: () => ({ kind: "gelu_tanh" as const }), tangent: [0],
      accumulates: [1, 2],
    },
    {
      name: "silu, many rows", shapes: [[213, 17], [21, 17], [21]], params: () => ({ kind: "silu" as const }),
      tangent: [0], accumulates: [1, 2],
    },
    {
      name: "no bias", shapes: [[2, 2, 5], [4, 5], null], params: () => ({ kind: "gelu_erf" as const }), tangent: [0],
      accumulates: [1],
    },
  ], { mixes: [[0], [1, 2]] }),
  layer_norm: entry(layerNormOp, [
    {
      name: "affine", shapes: [[3, 4, 9], [9], [9]], params: () => ({ eps: 1e-6, dtype: null }), tangent: [0],
      accumulates: [1, 2],
    },
    { name: "plain", shapes: [[5, 6], null, null], params: () => ({ eps: 1e-6, dtype: null }), tangent: [0] },
    {
      name: "many rows", shapes: [[131, 33], [33], [33]], params: () => ({ eps: 1e-6, dtype: null }), tangent: [0],
      accumulates: [1, 2],
    },
  ], { mixes: [[0], [1, 2]] }),
  ada_layer_norm: entry(adaLayerNormOp, [
    {
      name: "slots 3 and 4 of 6", shapes: [[3, 4, 10], [3, 6, 10]],
      params: () => ({ shift: 3, scale: 4, eps: 1e-6, dtype: null }), tangent: [0, 1], accumulates: [1],
      stored: { 1: "stat" },
    },
    {
      name: "one sample, many rows", shapes: [[1, 141, 7], [1, 2, 7]],
      params: () => ({ shift: 0, scale: 1, eps: 1e-6, dtype: null }), tangent: [0, 1], accumulates: [1],
      stored: { 1: "stat" },
    },
    {
      name: "tangent of the modulation alone", shapes: [[2, 3, 5], [2, 2, 5]],
      params: () => ({ shift: 1, scale: 0, eps: 1e-6, dtype: null }), tangent: [1], accumulates: [1],
      stored: { 1: "stat" },
    },
  ], { mixes: [[0]] }),
  rms_norm_rope: entry(rmsNormRopeOp, [
    {
      name: "full width, interleaved", shapes: [[2, 5, 12], [12]],
      params: (d, t) => ({
        heads: 2, group: 12, rope: rope(5, 6)(d, t), pairing: "interleaved" as const, eps: 1e-6, dtype: null,
      }),
      tangent: [0], accumulates: [1],
    },
    {
      name: "per head, halves", shapes: [[2, 3, 16], [8]],
      params: (d, t) => ({
        heads: 2, group: 8, rope: rope(3, 8)(d, t), pairing: "halves" as const, eps: 1e-6, dtype: null,
      }),
      tangent: [0], accumulates: [1],
    },
    {
      name: "no rope, many rows", shapes: [[3, 47, 10], [10]],
      params: () => ({ heads: 5, group: 10, rope: null, pairing: "interleaved" as const, eps: 1e-6, dtype: null }),
      tangent: [0], accumulates: [1],
    },
  ], { mixes: [[0], [1]] }),
  attention: entry(attentionOp, [
    {
      name: "self, odd lengths", shapes: [[2, 7, 12], [2, 7, 12], [2, 7, 12]],
      params: () => ({ heads: 3, scale: null }), tangent: [0, 1, 2],
    },
    {
      name: "cross, queries only", shapes: [[2, 5, 8], [2, 9, 8], [2, 9, 12]],
      params: () => ({ heads: 2, scale: null }), tangent: [0],
    },
    {
      name: "keys only", shapes: [[1, 5, 6], [1, 4, 6], [1, 4, 6]], params: () => ({ heads: 1, scale: 0.7 }),
      tangent: [1],
    },
    {
      name: "values only", shapes: [[1, 5, 6], [1, 4, 6], [1, 4, 6]], params: () => ({ heads: 1, scale: null }),
      tangent: [2],
    },
    {
      name: "several tiles", shapes: [[1, 130, 10], [1, 271, 10], [1, 271, 10]],
      params: () => ({ heads: 2, scale: null }), tangent: [0, 1, 2],
    },
    {
      name: "one key", shapes: [[1, 3, 4], [1, 1, 4], [1, 1, 4]], params: () => ({ heads: 2, scale: null }),
      tangent: [0, 1, 2],
    },
  ]),
  gate_residual: entry(gateResidualOp, [
    {
      name: "gated, slot 2 of 6", shapes: [[3, 4, 5], [3, 4, 5], [3, 6, 5]], params: () => ({ gate: 2 }),
      tangent: [0, 1, 2], accumulates: [2], stored: { 2: "stat" },
    },
    { name: "plain", shapes: [[2, 3, 5], [2, 3, 5], null], params: () => ({ gate: 0 }), tangent: [1] },
    {
      name: "one sample, many rows", shapes: [[1, 201, 3], [1, 201, 3], [1, 1, 3]], params: () => ({ gate: 0 }),
      tangent: [0, 2], accumulates: [2], stored: { 2: "stat" },
    },
  ], { mixes: [[0], [1]] }),
  add_modulation: entry(addModulationOp, [
    {
      name: "six slots", shapes: [[1, 6, 5], [3, 6, 5]], params: () => null, tangent: [1], accumulates: [0],
      stored: { 1: "stat" },
    },
    {
      name: "broadcast", shapes: [[1, 2, 7], [4, 1, 7]], params: () => null, tangent: [1], accumulates: [0],
      stored: { 1: "stat" },
    },
  ], { mixes: [[0]] }),
  patchify: entry(patchifyOp, (["channel_first", "channel_last"] as const).map((order) => ({
    name: order, shapes: [[2, 3, 2, 4, 6]], tangent: [0],
    params: () => ({ patch: [1, 2, 3] as const, order, dtype: null }),
  })), { mixes: [[0]] }),
  unpatchify: entry(unpatchifyOp, (["channel_first", "channel_last"] as const).map((order) => ({
    name: order, shapes: [[2, 8, 18]], tangent: [0],
    params: () => ({ patch: [1, 2, 3] as const, order, dtype: null, shape: [2, 3, 2, 4, 6] }),
  })), { mixes: [[0]] }),
  timestep_embed: entry(timestepEmbedOp, [
    {
      name: "8 wide", shapes: [[3]], params: (_d, t) => ({ width: 8, dtype: statDType(t) }), tangent: [0],
      stored: { 0: "f64" },
    },
  ], { anyShape: [0] }),
  sq_loss: entry(sqLossOp, [
    {
      name: "target and delta", shapes: [[3, 2, 5]],
      params: (d, t) => ({
        target: drawnTensor(d, [3, 2, 5], t, { seed: 9, stream: 1 }),
        delta: drawnTensor(d, [3, 2, 5], t, { seed: 9, stream: 2 }),
        weight: Float64Array.of(1, 0.5, 3),
      }),
      tangent: [0],
    },
    {
      name: "a weight per frame", shapes: [[2, 3, 5]], tangent: [0],
      params: () => ({ target: null, delta: null, weight: Float64Array.of(1, 0.5, 3, 0, -1, 2) }),
    },
    {
      name: "plain", shapes: [[2, 4097]], params: () => ({ target: null, delta: null, weight: Float64Array.of(1, 2) }),
      tangent: [0],
    },
  ]),
  cross_entropy: entry(crossEntropyOp, [
    {
      name: "4 of 6", shapes: [[4, 6]], params: (d) => ({ label: d.fromValues([0, 5, 2, 2], [4], "i32") }),
      tangent: [0],
    },
  ], { mixes: [[0]] }),
};
