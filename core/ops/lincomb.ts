import type { Code, Pointer } from "../../ffi/call.ts";
import { RcmError } from "../error.ts";
import type { Op } from "../op.ts";
import { expectLike, ptrOf, type Device, type Tensor } from "../tensor.ts";
import type { Tape, Var } from "../tape.ts";

/**
 * Coefficients of one term, value and tangent, on the host in f64: one per sample, or one per frame of samples
 * [B, T, ...]. A number applies everywhere.
 */
export interface Coefficient {
  value: Float64Array | number;
  dot?: Float64Array | number | null;
}

interface LincombParams {
  coef: Coefficient[];
}

/** The kernels, for coefficients already on the device. Shapes: coef, coefDot [terms, B] f64. */
export const lincombKernels = {
  forward(x: readonly Tensor[], coef: Tensor, y: Tensor): void {
    y.device.lib.lincombFwd({ ...terms(x), coef: coef.ptr, y: y.ptr, ...counts(x, coef) });
  },
  jvp(
    x: readonly Tensor[],
    xDot: readonly (Tensor | null)[],
    c: { coef: Tensor; coefDot: Tensor | null },
    out: { y: Tensor; yDot: Tensor },
  ): void {
    const [x0Dot, x1Dot, x2Dot, x3Dot] = [0, 1, 2, 3].map((i) => ptrOf(xDot[i]));
    out.y.device.lib.lincombJvp({
      ...terms(x), x0Dot, x1Dot, x2Dot, x3Dot, coef: c.coef.ptr, coefDot: ptrOf(c.coefDot), y: out.y.ptr,
      yDot: out.yDot.ptr, ...counts(x, c.coef),
    });
  },
  vjp(yBar: Tensor, coef: Tensor, xBar: Tensor, term: number): void {
    const { B, N, dtype } = counts([yBar], coef);
    yBar.device.lib.lincombVjp({ yBar: yBar.ptr, coef: coef.ptr, xBar: xBar.ptr, B, N, term, dtype });
  },
};

export const lincombOp: Op<readonly Tensor[], LincombParams> = {
  name: "lincomb",
  forward(x, { coef }) {
    const { device, B } = check(x, coef);
    const y = device.empty(x[0].shape, x[0].dtype);
    const c = upload(device, coef, B, false);
    lincombKernels.forward(x, c, y);
    c.free();
    return { y, saved: [] };
  },
  jvp(x, xDot, { coef }) {
    const { device, B } = check(x, coef);
    const y = device.empty(x[0].shape, x[0].dtype);
    const yDot = device.empty(y.shape, y.dtype);
    const c = upload(device, coef, B, false);
    const cDot = coef.some((one) => one.dot) ? upload(device, coef, B, true) : null;
    lincombKernels.jvp(x, xDot, { coef: c, coefDot: cDot }, { y, yDot });
    c.free();
    cDot?.free();
    return { y, yDot, saved: [] };
  },
  vjp(bar, yBar, x, _y, _saved, { coef }) {
    const { device, B } = check(x, coef);
    const c = upload(device, coef, B, false);
    for (let i = 0; i < x.length; i++) {
      if (!bar.need(i)) continue;
      const xBar = device.empty(yBar.shape, yBar.dtype);
      lincombKernels.vjp(yBar, c, xBar, i);
      bar.put(i, xBar);
    }
    c.free();
  },
};

function terms(x: readonly Tensor[]): Record<"x0" | "x1" | "x2" | "x3", Pointer | 0> {
  return { x0: ptrOf(x[0]), x1: ptrOf(x[1]), x2: ptrOf(x[2]), x3: ptrOf(x[3]) };
}

function counts(x: readonly Tensor[], coef: Tensor): { B: number; N: number; terms: number; dtype: Code } {
  const [first] = x;
  const B = coef.shape[1];
  return { B, N: B === 0 ? 0 : first.numel / B, terms: x.length, dtype: first.code };
}

function check(x: readonly Tensor[], coef: Coefficient[]): { device: Device; B: number } {
  if (x.length < 1 || x.length > 4 || coef.length !== x.length) {
    const [want, got] = [x.length, coef.length];
    throw new RcmError("E_ARG", "one to four terms, a coefficient each", { op: "lincomb", want, got });
  }
  const [first] = x;
  for (let i = 1; i < x.length; i++) expectLike("lincomb", `x${i}`, x[i], first);
  return { device: first.device, B: rowsOf(first, coef) };
}

/** Number of rows of x with separate coefficients: its samples or their frames. Throws: E_SHAPE. */
function rowsOf({ shape }: Tensor, coef: Coefficient[]): number {
  const [B, T] = [shape[0] ?? 1, shape[1] ?? 1];
  let rows = B;
  coef.forEach(({ value, dot }, i) => {
    for (const v of [value, dot]) {
      if (v === null || v === undefined || typeof v === "number" || v.length === B) continue;
      if (v.length !== B * T) {
        const text = `coefficient ${i} has not one value per sample or per frame`;
        throw new RcmError("E_SHAPE", text, { op: "lincomb", want: `${B} or ${B * T}`, got: v.length });
      }
      rows = B * T;
    }
  });
  return rows;
}

function upload(device: Device, coef: Coefficient[], B: number, dot: boolean): Tensor {
  const values = new Float64Array(coef.length * B);
  coef.forEach((one, i) => {
    const v = (dot ? one.dot : one.value) ?? 0;
    if (typeof v === "number") return void values.fill(v, i * B, (i + 1) * B);
    // A per-sample coefficient applies to every frame of its sample when others are per frame.
    const each = B / v.length;
    if (each === 1) return values.set(v, i * B);
    v.forEach((one, b) => values.fill(one, i * B + b * each, i * B + (b + 1) * each));
  });
  return device.fromValues(values, [coef.length, B], "f64");
}

/**
 * y[b] = sum_i coef_i[b] x_i[b].
 * Shapes: x_i [B, ...], coefficients [B], or [B * T] for x_i [B, T, ...]. Grad: x_i; coefficients carry tangents only.
 */
export const lincomb = (tape: Tape, terms: [Coefficient, Var][]): Var =>
  tape.run(lincombOp, terms.map(([, v]) => v), { coef: terms.map(([c]) => c) });

/** The same on plain tensors, without recording or tangents. */
export function combine(terms: [Float64Array | number, Tensor][]): Tensor {
  return lincombOp.forward(terms.map(([, t]) => t), { coef: terms.map(([value]) => ({ value })) }, false).y;
}
