import type { DType } from "../dtype.ts";
import type { Op } from "../op.ts";
import { expectDType, expectShape, type Tensor } from "../tensor.ts";
import type { Tape, Var } from "../tape.ts";

interface TimestepEmbedParams {
  /** Width of the embedding, even. */
  width: number;
  /** f32 or f64. */
  dtype: DType;
}

function check(t: Tensor | null): Tensor {
  const t_B = t as Tensor;
  expectShape("timestep_embed", "t", t_B, [-1]);
  expectDType("timestep_embed", "t", t_B, "f64");
  return t_B;
}

export const timestepEmbedOp: Op<TimestepEmbedParams> = {
  name: "timestep_embed",
  forward([t], { width, dtype }) {
    const t_B = check(t);
    const y = t_B.device.empty([t_B.numel, width], dtype);
    t_B.device.lib.timestepEmbedFwd({ t: t_B.ptr, y: y.ptr, B: t_B.numel, N: width, dtype: y.code });
    return { y, own: [] };
  },
  jvp([t], [tDot], { width, dtype }) {
    const t_B = check(t);
    const y = t_B.device.empty([t_B.numel, width], dtype);
    const yDot = t_B.device.empty([t_B.numel, width], dtype);
    t_B.device.lib.timestepEmbedJvp({
      t: t_B.ptr, tDot: check(tDot).ptr, y: y.ptr, yDot: yDot.ptr, B: t_B.numel, N: width, dtype: y.code,
    });
    return { y, yDot, own: [] };
  },
  vjp(bar, yBar, [t], _y, _own, { width }) {
    const t_B = check(t);
    const tBar = t_B.device.empty(t_B.shape, "f64");
    t_B.device.lib.timestepEmbedVjp({
      t: t_B.ptr, yBar: yBar.ptr, tBar: tBar.ptr, B: t_B.numel, N: width, dtype: yBar.code,
    });
    bar.put(0, tBar);
  },
};

/** Sinusoidal embedding [cos(t f), sin(t f)] with angles in f64. Shapes: t [B] f64 -> [B, width]. Units: the network's own time. */
export const timestepEmbed = (tape: Tape, t: Var, p: TimestepEmbedParams): Var => tape.run(timestepEmbedOp, [t], p);
