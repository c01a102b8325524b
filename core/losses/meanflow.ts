import { at, type Condition, type Time } from "../diffusion/predict.ts";
import { combine } from "../ops/lincomb.ts";
import { sqLoss } from "../ops/sq_loss.ts";
import { perSample } from "../shape.ts";
import { sampleReduce, type Tensor } from "../tensor.ts";
import { constant, Tape, type Var } from "../tape.ts";
import { finiteWeights, mean, norms, type Batch, type LossResult, type OnNonfinite } from "./loss.ts";

/** Average velocity of the path between RF times r <= t. Shapes: x [B, T, C, Y, X] -> the same. */
export type MeanVelocityNet = (tape: Tape, x: Var, t: Time, r: Time, condition: Condition) => Var;

/** Where the instantaneous velocity along the path comes from. */
export type MeanFlowVelocity =
  /** Of the data: eps - x0 (training from scratch). */
  | { kind: "data" }
  /** Of a guided teacher: v_c + (scale - 1)(v_c - v_u) (distillation). */
  | { kind: "teacher"; scale: number }
  /** With the student's guidance at r = t: scale (eps - x0) + (1 - scale - mix) u_u + mix u_c. */
  | { kind: "self"; scale: number; mix: number; start: number; end: number };

export interface MeanFlowOptions {
  velocity: MeanFlowVelocity;
  tangent: "jvp" | "finite_difference";
  fdSize: number;
  /** Weight 1 / (norm + normConst)^normPower. */
  normPower: number;
  normConst: number;
  /** Tangent warm-up factor in [0, 1]. */
  ramp: number;
  /** Divide the tangent by the square root of the number of elements. */
  spatialInvariance: boolean;
  /** `gradient`: move u along a normalised residual. `l2`: weighted squared error. */
  form: "gradient" | "l2";
  /** Range of RF times of the network, and of t - r. */
  minT: number;
  maxT: number;
  onNonfinite: OnNonfinite;
}

export interface MeanFlowDraws {
  t: Float64Array;
  r: Float64Array;
  eps: Tensor;
}

export interface MeanFlowNets {
  student: MeanVelocityNet;
  /** Instantaneous velocity of the teacher, for velocity kind "teacher". */
  teacher: ((tape: Tape, x: Var, t: Time, condition: Condition) => Var) | null;
  uncondition: ((B: number) => Condition) | null;
}

/** Everything between the networks and the loss; tests read it. */
export interface MeanFlowParts {
  xt: Tensor;
  v: Tensor;
  u: Tensor;
  /** du/dt along the path. */
  uJvp: Tensor;
  tangent: Tensor;
  weight: Float64Array;
}

/**
 * MeanFlow: u(x_t, t, r) = v - (t - r) du/dt, with du/dt along (v, 1, 0) from the same pass as u.
 * Shapes: latents [B, T, C, Y, X]. Units: RF times. Source: MeanFlow (arXiv 2505.13447) eq. 6-11.
 */
export function meanflowLoss(
  tape: Tape,
  nets: MeanFlowNets,
  { x0, condition }: Batch,
  { t, r, eps }: MeanFlowDraws,
  o: MeanFlowOptions,
): LossResult & { parts: MeanFlowParts } {
  const xt = combine([[t.map((v) => 1 - v), x0], [t, eps]]);
  const point = { xt, t, r, condition };
  const v = velocity(nets, point, combine([[1, eps], [-1, x0]]), o.velocity);
  const exact = o.tangent === "jvp";
  const u = nets.student(tape, constant(xt, exact ? v : null), at(t, exact ? t.map(() => 1) : null), at(r), condition);
  const uJvp = exact ? (u.dot as Tensor) : difference(nets.student, point, v, o);

  const delta = t.map((ti, b) => Math.min(Math.max(ti - r[b], o.minT), o.maxT));
  const n = perSample(x0.shape);
  const scale = o.spatialInvariance ? Math.sqrt(1 / n) : 1;
  const onJvp = delta.map((d) => -o.ramp * d * scale);
  const tangent = o.form === "gradient"
    ? combine([[scale, v], [-scale, u.x], [onJvp, uJvp]])
    : combine([[scale, v], [onJvp, uJvp]]);

  const size = o.form === "gradient" ? norms(tangent) : sampleReduce(combine([[1, u.x], [-1, tangent]]), "squares");
  const weight = size.map((s) => 1 / (s + o.normConst) ** o.normPower);
  const lossWeight = o.form === "gradient" ? weight.map(() => 1) : weight;
  const { weight: finite, skipped } = finiteWeights("meanflow", lossWeight, o.onNonfinite, { u: u.x, tangent });
  const loss = o.form === "gradient"
    ? sqLoss(tape, u, { target: u.x, delta: combine([[weight, tangent]]), weight: finite })
    : sqLoss(tape, u, { target: tangent, delta: null, weight: finite });
  return {
    loss,
    skipped,
    parts: { xt, v, u: u.x, uJvp, tangent, weight },
    stats: { meanflow_loss: mean(loss.x.values()), meanflow_tangent: mean(norms(tangent)) },
  };
}

/** Where on the path the average velocity is evaluated. */
interface Point {
  xt: Tensor;
  t: Float64Array;
  r: Float64Array;
  condition: Tensor;
}

/** The instantaneous velocity at a point; `data` is that of the data, eps - x0. */
function velocity(nets: MeanFlowNets, { xt, t, condition }: Point, data: Tensor, kind: MeanFlowVelocity): Tensor {
  if (kind.kind === "data") return data;
  const tape = new Tape(xt.device, { record: false });
  const uncondition = nets.uncondition?.(condition.shape[0]) ?? condition;
  if (kind.kind === "teacher") {
    const teacher = nets.teacher as NonNullable<MeanFlowNets["teacher"]>;
    const c = teacher(tape, constant(xt), at(t), condition).x;
    if (kind.scale === 1) return c;
    const u = teacher(tape, constant(xt), at(t), uncondition).x;
    return combine([[kind.scale, c], [1 - kind.scale, u]]);
  }
  const inRange = (value: number, outside: number): Float64Array =>
    t.map((ti) => (ti >= kind.start && ti <= kind.end ? value : outside));
  const u = nets.student(tape, constant(xt), at(t), at(t), uncondition).x;
  if (kind.mix === 0) return combine([[inRange(kind.scale, 1), data], [inRange(1 - kind.scale, 0), u]]);
  const c = nets.student(tape, constant(xt), at(t), at(t), condition).x;
  const { scale, mix } = kind;
  return combine([[inRange(scale, 1), data], [inRange(1 - scale - mix, 0), u], [inRange(mix, 0), c]]);
}

/** du/dt by central differences, one-sided where t - h or t + h leaves [max(minT, r), maxT]. */
function difference(net: MeanVelocityNet, { xt, t, r, condition }: Point, v: Tensor, o: MeanFlowOptions): Tensor {
  const back = t.map((ti, b) => (ti - o.fdSize >= o.minT && ti - o.fdSize > r[b] ? o.fdSize : 0));
  const ahead = t.map((ti) => (ti + o.fdSize <= o.maxT ? o.fdSize : 0));
  const tape = new Tape(xt.device, { record: false });
  const uAfter = (h: Float64Array): Tensor =>
    net(tape, constant(combine([[1, xt], [h, v]])), at(t.map((ti, b) => ti + h[b])), at(r), condition).x;
  const span = t.map((_, b) => Math.max(ahead[b] + back[b], Number.MIN_VALUE));
  const [plus, minus] = [uAfter(ahead), uAfter(back.map((h) => -h))];
  return combine([[span.map((h) => 1 / h), plus], [span.map((h) => -1 / h), minus]]);
}
