import type { DType } from "../dtype.ts";
import { at, evaluate, type Denoiser, type Time } from "../diffusion/predict.ts";
import { combine } from "../ops/lincomb.ts";
import { sqLoss } from "../ops/sq_loss.ts";
import type { Tensor } from "../tensor.ts";
import { constant, Tape, type Var } from "../tape.ts";
import { cosSin, finiteWeights, mean, norms, type Batch, type LossResult, type OnNonfinite } from "./loss.ts";

/** How the total derivative of F along the teacher's trajectory is found. */
export type TangentKind =
  /** Jacobian-vector product in x and t. */
  | "jvp"
  /** JVP in x, backward difference in t (semi-continuous). */
  | "semi_continuous"
  /** Backward difference along the trajectory (discrete). */
  | "finite_difference";

export interface ScmOptions {
  tangent: TangentKind;
  /** Step h of the differences, radians of tTrig. */
  fdSize: number;
  /** "two": a separate pass for the tangent, as the public code does; same values, more work. */
  passes: "one" | "two";
  /** Tangent warm-up factor r in [0, 1]. */
  ramp: number;
  /** What r multiplies: x_t only (public code) or the whole second term (sCM text). */
  rampScope: "x_t" | "second_term";
  /** Factor of the loss (100 in the public recipes). */
  scale: number;
  /** The student with f32-grade arithmetic: D then comes from a pass of its own through it. */
  precise: Denoiser | null;
  onNonfinite: OnNonfinite;
}

export interface ScmDraws {
  /** TrigFlow times [B]. */
  tTrig: Float64Array;
  /** Noise, shape of x0. */
  eps: Tensor;
}

/** Everything between the two networks and the loss; tests read it. */
export interface ScmParts {
  xt: Tensor;
  fTeacher: Tensor;
  F: Var;
  /** cos sin dF/dt, the tangent. */
  tF: Tensor;
  gRaw: Tensor;
  g: Tensor;
  gNorm: Float64Array;
}

/**
 * Tangent, normalised target and student field of sCM. One pass of the student gives F with its record and its tangent.
 *
 *   g = -cos sqrt(1 - r^2 sin^2) (F - F*) - (r cos sin x_t + D),   D = JVP of F along (cos sin F*, cos sin)
 *   g <- g / (|g| + 0.1)
 * Shapes: latents [B, C, T, Y, X]. Source: sCM Algorithm 1, rCM eq. 9 and its public recipe.
 */
export function scmParts(tape: Tape, student: Denoiser, teacher: Denoiser, batch: Batch, { tTrig, eps }: ScmDraws, o: ScmOptions): ScmParts {
  const { c, s } = cosSin(tTrig);
  const cs = c.map((ci, b) => ci * s[b]);
  const { x0, condition } = batch;
  const xt = combine([[c, x0], [s, eps]]);
  const fTeacher = evaluate(teacher.field, xt, tTrig, condition);

  const xDot = o.tangent === "finite_difference" ? null : combine([[cs, fTeacher]]);
  const tDot = o.tangent === "jvp" ? cs : null;
  const along = (on: Tape): Var => student.field(on, constant(xt, xDot), at(tTrig, tDot), condition);
  const one = (o.passes === "one" && !o.precise) || o.tangent === "finite_difference";
  const F = one ? along(tape) : student.field(tape, constant(xt), at(tTrig), condition);
  const dot = one ? F.dot : o.precise ? exactly(o.precise, xt, xDot as Tensor, at(tTrig, tDot), condition, F.x.dtype) : along(new Tape(tape.device, { record: false })).dot;
  const tF = o.tangent === "jvp" ? (dot as Tensor) : difference(student, F.x, dot, xt, fTeacher, tTrig, cs, condition, o);

  const r = o.ramp;
  const onSecond = o.rampScope === "second_term" ? r : 1;
  const pull = c.map((ci, b) => ci * Math.sqrt(1 - r * r * s[b] * s[b]));
  const gRaw = combine([[pull.map((v) => -v), F.x], [pull, fTeacher], [cs.map((v) => -r * v), xt], [-onSecond, tF]]);
  const gNorm = norms(gRaw);
  const g = combine([[gNorm.map((n) => 1 / (n + 0.1)), gRaw]]);
  return { xt, fTeacher, F, tF, gRaw, g, gNorm };
}

/** The tangent of a denoiser that computes in f32, rounded once at the end. */
function exactly(precise: Denoiser, x: Tensor, xDot: Tensor, time: Time, condition: Tensor, dtype: DType): Tensor {
  const scope = x.device.scope();
  try {
    const { dot } = precise.field(new Tape(x.device, { record: false }), constant(x.to("f32"), xDot.to("f32")), time, condition);
    return scope.keep((dot as Tensor).to(dtype));
  } finally {
    scope[Symbol.dispose]();
  }
}

/** D by differences: cos sin (cos h F(x, t) - F(x', t - h)) / sin h, plus the JVP in x when x' = x. */
function difference(student: Denoiser, F: Tensor, dot: Tensor | null, xt: Tensor, fTeacher: Tensor, tTrig: Float64Array, cs: Float64Array, condition: Tensor, o: ScmOptions): Tensor {
  const [ch, sh] = [Math.cos(o.fdSize), Math.sin(o.fdSize)];
  const before = tTrig.map((t) => t - o.fdSize);
  const semi = o.tangent === "semi_continuous";
  const xBefore = semi ? xt : combine([[ch, xt], [-sh, fTeacher]]);
  const fBefore = evaluate(student.field, xBefore, before, condition);
  const now = cs.map((v) => (v * ch) / sh);
  const past = cs.map((v) => -v / sh);
  return semi ? combine([[1, dot as Tensor], [now, F], [past, fBefore]]) : combine([[now, F], [past, fBefore]]);
}

/** The sCM loss scale * sum (F - sg F - g)^2 per sample. Throws: E_NONFINITE (or drops the sample, as told). */
export function scmLoss(tape: Tape, student: Denoiser, teacher: Denoiser, batch: Batch, draws: ScmDraws, o: ScmOptions): LossResult {
  const parts = scmParts(tape, student, teacher, batch, draws, o);
  const { F, g, gNorm, tF } = parts;
  const { weight, skipped } = finiteWeights("scm", gNorm.map(() => o.scale), o.onNonfinite, { F: F.x, g });
  const loss_B = sqLoss(tape, F, { target: F.x, delta: g, weight });
  return { loss_B, skipped, stats: { scm_loss: mean(loss_B.x.values()), scm_g: mean(gNorm), scm_tangent: mean(norms(tF)) } };
}
