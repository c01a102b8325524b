import { combine } from "../ops/lincomb.ts";
import type { Tensor } from "../tensor.ts";
import type { Sampler } from "./sampler.ts";

/** lambda = log(alpha / sigma) of an RF time. */
const lambda = (tRf: number): number => Math.log(1 - tRf) - Math.log(tRf);

/**
 * phi_1 of a data-prediction step of log-SNR length h, and the right-hand sides b1, b2 of the order conditions for
 * B(h) = expm1(-h).
 */
function phis(h: number): { phi1: number; b1: number; b2: number } {
  const phi1 = Math.expm1(-h);
  const phiK = phi1 / -h - 1;
  return { phi1, b1: phiK / phi1, b2: ((phiK / -h - 0.5) * 2) / phi1 };
}

/** Coefficients of the history differences: predictor (order 2) and corrector (order 1 or 2). */
function unipcRhos(order: 1 | 2, ratio: number, h: number): { predict: number; correct: [number, number] } {
  if (order === 1) return { predict: 0, correct: [0, 0.5] };
  // [1 1; ratio 1] rho = [b1; b2], ratio = (lambda_older - lambda_previous) / h
  const { b1, b2 } = phis(h);
  const older = (b2 - b1) / (ratio - 1);
  return { predict: 0.5, correct: [older, b1 - older] };
}

/** A past evaluation: its time, the corrected state, and the predicted clean latent. */
interface Evaluation {
  t: number;
  x: Tensor;
  x0: Tensor;
}

/**
 * UniPC of order 2 on the flow ODE with data prediction: a predictor step, then, once the velocity at the predicted
 * state is known, a corrector step for that state. The last step drops to order 1. `times` descend and exclude the
 * final 0, which the last step reaches exactly. Source: UniPC (arXiv 2302.04867) with B(h) = expm1(-h), its "bh2".
 */
export function* unipc(x: Tensor, times: ArrayLike<number>): Sampler {
  const steps = times.length;
  let older: Evaluation | null = null;
  let previous: Evaluation | null = null;
  let order: 1 | 2 = 1;
  for (let k = 0; k < steps; k++) {
    const t = times[k];
    const keep: Tensor[] = [...(previous ? [previous.x, previous.x0] : []), ...(older ? [older.x0] : [])];
    const v: Tensor = yield { want: "velocity", x, tRf: t, keep };
    const x0 = combine([[1, x], [-t, v]]);
    if (previous) x = correct({ t, x0 }, previous, older, order);
    older = previous;
    previous = { t, x, x0 };
    order = k === 0 || k === steps - 1 ? 1 : 2;
    x = predict(previous, older, times[k + 1] ?? 0, order);
  }
  return x;
}

function predict(now: Evaluation, older: Evaluation | null, to: number, order: 1 | 2): Tensor {
  if (to === 0) return combine([[1, now.x0]]);
  const h = lambda(to) - lambda(now.t);
  const { phi1 } = phis(h);
  const alpha = 1 - to;
  const base: [number, Tensor][] = [[to / now.t, now.x], [-alpha * phi1, now.x0]];
  if (order === 1 || !older) return combine(base);
  const ratio = (lambda(older.t) - lambda(now.t)) / h;
  const weight = (-alpha * phi1 * 0.5) / ratio;
  return combine([base[0], [base[1][0] - weight, now.x0], [weight, older.x0]]);
}

function correct(now: { t: number; x0: Tensor }, previous: Evaluation, older: Evaluation | null, order: 1 | 2): Tensor {
  const { t, x0 } = now;
  const h = lambda(t) - lambda(previous.t);
  const { phi1 } = phis(h);
  const scale = -(1 - t) * phi1;
  const second = order === 2 && older !== null;
  const ratio = second ? (lambda(older.t) - lambda(previous.t)) / h : 0;
  const { correct: rho } = unipcRhos(second ? 2 : 1, ratio, h);
  const base: [number, Tensor][] = [
    [t / previous.t, previous.x],
    [scale * (1 - rho[1]), previous.x0],
    [scale * rho[1], x0],
  ];
  if (!second) return combine(base);
  const weight = (scale * rho[0]) / ratio;
  return combine([base[0], [base[1][0] - weight, previous.x0], base[2], [weight, older.x0]]);
}
