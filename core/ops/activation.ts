import type { Op } from "../op.ts";
import type { Tensor } from "../tensor.ts";
import type { Tape, Var } from "../tape.ts";

export type ActivationKind = "gelu_tanh" | "gelu_erf" | "silu" | "tanh";
/** Codes of `kind` in rcm.h. */
export const activationCode = (kind: ActivationKind): number => ["gelu_tanh", "gelu_erf", "silu", "tanh"].indexOf(kind);

export const activationOp: Op<{ kind: ActivationKind }> = {
  name: "activation",
  forward([x], { kind }) {
    const X = x as Tensor;
    const y = X.device.empty(X.shape, X.dtype);
    X.device.lib.activationFwd({ x: X.ptr, y: y.ptr, n: X.numel, kind: activationCode(kind), dtype: X.code });
    return { y, own: [] };
  },
  jvp([x], [xDot], { kind }) {
    const X = x as Tensor;
    const y = X.device.empty(X.shape, X.dtype);
    const yDot = X.device.empty(X.shape, X.dtype);
    X.device.lib.activationJvp({
      x: X.ptr, xDot: (xDot as Tensor).ptr, y: y.ptr, yDot: yDot.ptr, n: X.numel, kind: activationCode(kind),
      dtype: X.code,
    });
    return { y, yDot, own: [] };
  },
  vjp(bar, yBar, [x], _y, _own, { kind }) {
    const X = x as Tensor;
    const xBar = X.device.empty(X.shape, X.dtype);
    X.device.lib.activationVjp({
      x: X.ptr, yBar: yBar.ptr, xBar: xBar.ptr, n: X.numel, kind: activationCode(kind), dtype: X.code,
    });
    bar.put(0, xBar);
  },
};

/** y = f(x) element by element. Shapes: any. */
export const activation = (tape: Tape, x: Var, kind: ActivationKind): Var => tape.run(activationOp, [x], { kind });
