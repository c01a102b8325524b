import type { Pointer } from "../../ffi/call.ts";
import { RcmError } from "../error.ts";
import type { Op } from "../op.ts";
import { expectShape, type Device, type Tensor } from "../tensor.ts";
import { constant, type Tape, type Var } from "../tape.ts";

/** Per-sample coefficients of one term: value and tangent, on the host in f64. Numbers hold for every sample. */
export interface Coefficient {
  value: Float64Array | number;
  dot?: Float64Array | number | null;
}

interface LincombParams {
  coef: Coefficient[];
}

export const lincombOp: Op<LincombParams> = {
  name: "lincomb",
  forward(x, { coef }) {
    const { device, B, N, first } = check(x, coef);
    const y = device.empty(first.shape, first.dtype);
    const c = upload(device, coef, B, false);
    const at = (i: number): Pointer | 0 => x[i]?.ptr ?? 0;
    device.lib.lincombFwd({
      x0: at(0), x1: at(1), x2: at(2), x3: at(3), coef: c.ptr, y: y.ptr, B, N, terms: x.length, dtype: first.code,
    });
    c.free();
    return { y, own: [] };
  },
  jvp(x, xDot, { coef }) {
    const { device, B, N, first } = check(x, coef);
    const y = device.empty(first.shape, first.dtype);
    const yDot = device.empty(first.shape, first.dtype);
    const c = upload(device, coef, B, false);
    const cDot = coef.some((one) => one.dot) ? upload(device, coef, B, true) : null;
    const at = (i: number): Pointer | 0 => x[i]?.ptr ?? 0;
    const dot = (i: number): Pointer | 0 => xDot[i]?.ptr ?? 0;
    device.lib.lincombJvp({
      x0: at(0), x1: at(1), x2: at(2), x3: at(3), x0Dot: dot(0), x1Dot: dot(1), x2Dot: dot(2), x3Dot: dot(3),
      coef: c.ptr, coefDot: cDot?.ptr ?? 0, y: y.ptr, yDot: yDot.ptr, B, N, terms: x.length, dtype: first.code,
    });
    c.free();
    cDot?.free();
    return { y, yDot, own: [] };
  },
  vjp(bar, yBar, x, _y, _own, { coef }) {
    const { device, B, N } = check(x, coef);
    const c = upload(device, coef, B, false);
    for (let i = 0; i < x.length; i++) {
      if (!bar.need(i)) continue;
      const xBar = device.empty(yBar.shape, yBar.dtype);
      device.lib.lincombVjp({ yBar: yBar.ptr, coef: c.ptr, xBar: xBar.ptr, B, N, term: i, dtype: yBar.code });
      bar.put(i, xBar);
    }
    c.free();
  },
};

function check(x: (Tensor | null)[], coef: Coefficient[]): { device: Device; B: number; N: number; first: Tensor } {
  if (x.length < 1 || x.length > 4 || coef.length !== x.length) {
    throw new RcmError("E_ARG", "one to four terms, a coefficient each", { op: "lincomb", want: x.length, got: coef.length });
  }
  const first = x[0] as Tensor;
  const B = first.shape[0] ?? 1;
  x.forEach((t, i) => expectShape("lincomb", `x${i}`, t as Tensor, first.shape));
  return { device: first.device, B, N: B === 0 ? 0 : first.numel / B, first };
}

function upload(device: Device, coef: Coefficient[], B: number, dot: boolean): Tensor {
  const values = new Float64Array(coef.length * B);
  coef.forEach((one, i) => {
    const v = (dot ? one.dot : one.value) ?? 0;
    if (typeof v !== "number" && v.length !== B) throw new RcmError("E_SHAPE", `coefficient ${i} has not one value a sample`, { op: "lincomb", want: B, got: v.length });
    if (typeof v === "number") values.fill(v, i * B, (i + 1) * B);
    else values.set(v, i * B);
  });
  return device.fromValues(values, [coef.length, B], "f64");
}

/** y[b] = sum_i coef_i[b] x_i[b]. Shapes: x_i [B, ...], coefficients [B]. Grad: to x_i; coefficients have a tangent only. */
export const lincomb = (tape: Tape, terms: [Coefficient, Var][]): Var =>
  tape.run(lincombOp, terms.map(([, v]) => v), { coef: terms.map(([c]) => c) });

/** The same on plain tensors, with neither record nor tangent. */
export function combine(terms: [Float64Array | number, Tensor][]): Tensor {
  return lincombOp.forward(terms.map(([, t]) => constant(t).x), { coef: terms.map(([value]) => ({ value })) }, false).y;
}
