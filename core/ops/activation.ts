import { onlyTangent, type Op } from "../op.ts";
import type { Tensor } from "../tensor.ts";
import type { Tape, Var } from "../tape.ts";

export type ActivationKind = "gelu_tanh" | "gelu_erf" | "silu" | "tanh";
/** Codes of `kind` in rcm.h. */
export const activationCode = (kind: ActivationKind): number => ["gelu_tanh", "gelu_erf", "silu", "tanh"].indexOf(kind);

export const activationOp: Op<[x: Tensor], { kind: ActivationKind }> = {
  name: "activation",
  forward([x], p) {
    const y = x.device.empty(x.shape, x.dtype);
    const kind = activationCode(p.kind);
    x.device.lib.activationFwd({ x: x.ptr, y: y.ptr, n: x.numel, kind, dtype: x.code });
    return { y, saved: [] };
  },
  jvp([x], xDots, p) {
    const xDot = onlyTangent("activation", xDots);
    const y = x.device.empty(x.shape, x.dtype);
    const yDot = x.device.empty(x.shape, x.dtype);
    const kind = activationCode(p.kind);
    x.device.lib.activationJvp({
      x: x.ptr, xDot: xDot.ptr, y: y.ptr, yDot: yDot.ptr, n: x.numel, kind, dtype: x.code,
    });
    return { y, yDot, saved: [] };
  },
  vjp(bar, yBar, [x], _y, _saved, p) {
    const xBar = x.device.empty(x.shape, x.dtype);
    const kind = activationCode(p.kind);
    x.device.lib.activationVjp({ x: x.ptr, yBar: yBar.ptr, xBar: xBar.ptr, n: x.numel, kind, dtype: x.code });
    bar.put(0, xBar);
  },
};

/** y = f(x) element by element. Shapes: any. */
export const activation = (tape: Tape, x: Var, kind: ActivationKind): Var => tape.run(activationOp, [x], { kind });
