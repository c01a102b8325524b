import type { DType } from "../dtype.ts";
import { at, evaluate, type Denoiser } from "../diffusion/predict.ts";
import { RcmError } from "../error.ts";
import { combine } from "../ops/lincomb.ts";
import { sqLoss } from "../ops/sq_loss.ts";
import type { Tensor } from "../tensor.ts";
import { constant, Tape, type Var } from "../tape.ts";
import { cosSin, finiteWeights, mean, norms, type Batch, type LossResult, type OnNonfinite } from "./loss.ts";

type Term = [Float64Array, Tensor];

/** c of the tangent normalisation g / (|g| + c). Source: sCM section 4.1. */
const C = 0.1;

/** How the total derivative of F along the teacher's trajectory is computed. */
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
  /** The student with f32-grade arithmetic: D is then computed in a separate pass through it. */
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
  D: Tensor;
  gRaw: Tensor;
  g: Tensor;
  gNorm: Float64Array;
}

/**
 * Student field F, its tangent D and the normalised target g of sCM; one pass of the student gives F and D.
 *
 *   g = -cos sqrt(1 - r^2 sin^2) (F - F*) - (r cos sin x_t + D),   D = JVP of F along (cos sin F*, cos sin)
 *   g <- g / (|g| + c)
 * Shapes: latents [B, T, C, Y, X]. Source: sCM Algorithm 1, rCM eq. 9 and its public recipe.
 */
export function scmParts(
  tape: Tape,
  student: Denoiser,
  teacher: Denoiser,
  batch: Batch,
  { tTrig, eps }: ScmDraws,
  o: ScmOptions,
): ScmParts {
  const { c, s } = cosSin(tTrig);
  const cs = c.map((ci, b) => ci * s[b]);
  const { x0, condition } = batch;
  const xt = combine([[c, x0], [s, eps]]);
  const fTeacher = evaluate(teacher.field, xt, tTrig, condition);

  const { F, D } = fieldAndTangent(tape, student, { xt, fTeacher, tTrig, cs, condition }, o);

  const r = o.ramp;
  const rD = o.rampScope === "second_term" ? r : 1;
  const onF = c.map((ci, b) => ci * Math.sqrt(1 - r * r * s[b] * s[b]));
  const gRaw = combine([[onF.map((v) => -v), F.x], [onF, fTeacher], [cs.map((v) => -r * v), xt], [-rD, D]]);
  const gNorm = norms(gRaw);
  const g = combine([[gNorm.map((n) => 1 / (n + C)), gRaw]]);
  return { xt, fTeacher, F, D, gRaw, g, gNorm };
}

/** Where F and its tangent are evaluated; the direction is cos sin F* in x and cos sin in time. */
interface Point {
  xt: Tensor;
  fTeacher: Tensor;
  tTrig: Float64Array;
  cs: Float64Array;
  condition: Tensor;
}

/** F on the tape and D = cos sin dF/dt, computed as `o.tangent` says. */
function fieldAndTangent(tape: Tape, student: Denoiser, p: Point, o: ScmOptions): { F: Var; D: Tensor } {
  const { xt, fTeacher, tTrig, cs, condition } = p;
  const field = (on: Tape, xDot: Tensor | null, tDot: Float64Array | null): Var =>
    student.field(on, constant(xt, xDot), at(tTrig, tDot), condition);
  const along = (tDot: Float64Array | null): { F: Var; dot: Tensor } => {
    const xDot = combine([[cs, fTeacher]]);
    if (o.precise) {
      const F = field(tape, null, null);
      return { F, dot: preciseTangent(o.precise, p, { xDot, tDot }, F.x.dtype) };
    }
    const F = field(tape, o.passes === "one" ? xDot : null, o.passes === "one" ? tDot : null);
    const { dot } = o.passes === "one" ? F : field(new Tape(tape.device, { record: false }), xDot, tDot);
    if (!dot) throw new RcmError("E_INTERNAL", "the student gave no tangent", { op: "scm" });
    return { F, dot };
  };
  // The two terms of the backward difference cos sin (cos h F(x, t) - F(x', t - h)) / sin h.
  const [ch, sh] = [Math.cos(o.fdSize), Math.sin(o.fdSize)];
  const backwardDifference = (F: Tensor, xBefore: Tensor): [Term, Term] => {
    const fBefore = evaluate(student.field, xBefore, tTrig.map((t) => t - o.fdSize), condition);
    return [[cs.map((v) => (v * ch) / sh), F], [cs.map((v) => -v / sh), fBefore]];
  };
  switch (o.tangent) {
    case "jvp": {
      const { F, dot } = along(cs);
      return { F, D: dot };
    }
    case "semi_continuous": {
      const { F, dot } = along(null);
      return { F, D: combine([[1, dot], ...backwardDifference(F.x, xt)]) };
    }
    case "finite_difference": {
      const F = field(tape, null, null);
      const xBefore = combine([[ch, xt], [-sh, fTeacher]]);
      return { F, D: combine(backwardDifference(F.x, xBefore)) };
    }
  }
}

/** The tangent of a denoiser that computes in f32, rounded once at the end. */
function preciseTangent(
  precise: Denoiser,
  { xt, tTrig, condition }: Point,
  { xDot, tDot }: { xDot: Tensor; tDot: Float64Array | null },
  dtype: DType,
): Tensor {
  return xt.device.keep(() => {
    const tape = new Tape(xt.device, { record: false });
    const { dot } = precise.field(tape, constant(xt.to("f32"), xDot.to("f32")), at(tTrig, tDot), condition);
    if (!dot) throw new RcmError("E_INTERNAL", "the student gave no tangent", { op: "scm" });
    return dot.to(dtype);
  });
}

/** The sCM loss scale * sum (F - sg F - g)^2 per sample. Throws: E_NONFINITE when `o.onNonfinite` is "raise". */
export function scmLoss(
  tape: Tape,
  student: Denoiser,
  teacher: Denoiser,
  batch: Batch,
  draws: ScmDraws,
  o: ScmOptions,
): LossResult {
  const parts = scmParts(tape, student, teacher, batch, draws, o);
  const { F, g, gNorm, D } = parts;
  const { weight, skipped } = finiteWeights("scm", gNorm.map(() => o.scale), o.onNonfinite, { F: F.x, g });
  const loss = sqLoss(tape, F, { target: F.x, delta: g, weight });
  return {
    loss,
    skipped,
    stats: { scm_loss: mean(loss.x.values()), scm_g: mean(gNorm), scm_tangent: mean(norms(D)) },
  };
}
