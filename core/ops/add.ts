import type { Op } from "../op.ts";
import { expectShape, type Tensor } from "../tensor.ts";
import type { Tape, Var } from "../tape.ts";

export const addOp: Op<null> = {
  name: "add",
  forward([a, b]) {
    const [A, B] = check(a, b);
    const y = A.device.empty(A.shape, A.dtype);
    A.device.lib.addFwd({ a: A.ptr, b: B.ptr, y: y.ptr, n: A.numel, dtype: A.code });
    return { y, own: [] };
  },
  jvp([a, b], [aDot, bDot]) {
    const [A, B] = check(a, b);
    const y = A.device.empty(A.shape, A.dtype);
    const yDot = A.device.empty(A.shape, A.dtype);
    A.device.lib.addJvp({
      a: A.ptr, b: B.ptr, aDot: aDot?.ptr ?? 0, bDot: bDot?.ptr ?? 0, y: y.ptr, yDot: yDot.ptr, n: A.numel,
      dtype: A.code,
    });
    return { y, yDot, own: [] };
  },
  vjp(bar, yBar) {
    if (bar.need(0)) bar.put(0, yBar);
    if (bar.need(1)) bar.put(1, yBar);
  },
};

function check(a: Tensor | null, b: Tensor | null): [Tensor, Tensor] {
  const [A, B] = [a as Tensor, b as Tensor];
  expectShape("add", "b", B, A.shape);
  return [A, B];
}

/** y = a + b. Shapes: any, equal. Grad: the cotangent is passed on unchanged. */
export const add = (tape: Tape, a: Var, b: Var): Var => tape.run(addOp, [a, b], null);
