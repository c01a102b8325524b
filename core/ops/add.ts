import type { Op } from "../op.ts";
import { expectLike, ptrOf, type Tensor } from "../tensor.ts";
import type { Tape, Var } from "../tape.ts";

export const addOp: Op<[a: Tensor, b: Tensor], null> = {
  name: "add",
  forward([a, b]) {
    expectLike("add", "b", b, a);
    const y = a.device.empty(a.shape, a.dtype);
    a.device.lib.addFwd({ a: a.ptr, b: b.ptr, y: y.ptr, n: a.numel, dtype: a.code });
    return { y, saved: [] };
  },
  jvp([a, b], [aDot, bDot]) {
    expectLike("add", "b", b, a);
    const y = a.device.empty(a.shape, a.dtype);
    const yDot = a.device.empty(a.shape, a.dtype);
    a.device.lib.addJvp({
      a: a.ptr, b: b.ptr, aDot: ptrOf(aDot), bDot: ptrOf(bDot), y: y.ptr, yDot: yDot.ptr, n: a.numel, dtype: a.code,
    });
    return { y, yDot, saved: [] };
  },
  vjp(bar, yBar) {
    if (bar.need(0)) bar.put(0, yBar);
    if (bar.need(1)) bar.put(1, yBar);
  },
};

/** y = a + b. Shapes: any, equal. Grad: the cotangent is passed on unchanged. */
export const add = (tape: Tape, a: Var, b: Var): Var => tape.run(addOp, [a, b], null);
