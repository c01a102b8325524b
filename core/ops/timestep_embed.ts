import type { DType } from "../dtype.ts";
import { onlyTangent, type Op } from "../op.ts";
import { expectDType, expectShape, type Tensor } from "../tensor.ts";
import type { Tape, Var } from "../tape.ts";

interface TimestepEmbedParams {
  /** Width of the embedding, even. */
  width: number;
  /** f32 or f64. */
  dtype: DType;
}

function check(t: Tensor): void {
  expectShape("timestep_embed", "t", t, [-1]);
  expectDType("timestep_embed", "t", t, "f64");
}

export const timestepEmbedOp: Op<[t: Tensor], TimestepEmbedParams> = {
  name: "timestep_embed",
  forward([t], { width, dtype }) {
    check(t);
    const y = t.device.empty([t.numel, width], dtype);
    t.device.lib.timestepEmbedFwd({ t: t.ptr, y: y.ptr, B: t.numel, N: width, dtype: y.code });
    return { y, saved: [] };
  },
  jvp([t], dots, { width, dtype }) {
    const tDot = onlyTangent("timestep_embed", dots);
    check(t);
    const y = t.device.empty([t.numel, width], dtype);
    const yDot = t.device.empty([t.numel, width], dtype);
    t.device.lib.timestepEmbedJvp({
      t: t.ptr, tDot: tDot.ptr, y: y.ptr, yDot: yDot.ptr, B: t.numel, N: width, dtype: y.code,
    });
    return { y, yDot, saved: [] };
  },
  vjp(bar, yBar, [t], _y, _saved, { width }) {
    check(t);
    const tBar = t.device.empty(t.shape, "f64");
    t.device.lib.timestepEmbedVjp({
      t: t.ptr, yBar: yBar.ptr, tBar: tBar.ptr, B: t.numel, N: width, dtype: yBar.code,
    });
    bar.put(0, tBar);
  },
};

/**
 * Sinusoidal embedding [cos(t f), sin(t f)] with angles in f64.
 * Shapes: t [B] f64 -> [B, width]. Units: the network's own time.
 */
export const timestepEmbed = (tape: Tape, t: Var, p: TimestepEmbedParams): Var => tape.run(timestepEmbedOp, [t], p);
