import { drawRf } from "../../diffusion/time.ts";
import { meanflowLoss, type MeanFlowVelocity } from "../../losses/meanflow.ts";
import type { MeanflowRecipe, Recipe } from "../../recipe/schema.ts";
import type { Draws } from "../draws.ts";
import { rampAt, single, studentRoles, type Method, type Objective } from "../method.ts";
import type { Roles } from "../role.ts";

/** Average velocity between two times by the MeanFlow identity. Source: MeanFlow (arXiv 2505.13447) Algorithm 1. */
export const meanflowObjective = (c: MeanflowRecipe): Objective => ({ recipe, step, nets, batch, draws }, tape) => {
  const { t, r } = drawIntervals(c, batch.x0.shape[0], draws);
  const eps = draws.noise("noise", batch.x0);
  const networks = {
    student: nets.meanVelocity("student"),
    teacher: c.velocity === "teacher" ? nets.velocity("teacher") : null,
    uncondition: nets.negative,
  };
  return meanflowLoss(tape, networks, batch, { t, r, eps }, {
    velocity: velocityOf(c, recipe),
    tangent: c.tangent,
    fdSize: c.fd_size,
    normPower: c.norm_power,
    normConst: c.norm_const,
    ramp: rampAt(step, c.tangent_warmup),
    spatialInvariance: c.spatial_invariance,
    form: c.form,
    minT: 0,
    maxT: 1,
    onNonfinite: recipe.objective.on_nonfinite,
  });
};

function velocityOf(c: MeanflowRecipe, { teacher }: Recipe): MeanFlowVelocity {
  if (c.velocity === "teacher") return { kind: "teacher", scale: teacher?.guidance ?? 1 };
  if (c.velocity === "data") return { kind: "data" };
  return { kind: "self", scale: c.self_scale, mix: c.self_mix, start: 0, end: 1 };
}

/** Pairs r <= t of RF times, r = t with probability `equal_fraction`. Source: MeanFlow section 4.1. */
function drawIntervals(c: MeanflowRecipe, B: number, draws: Draws): { t: Float64Array; r: Float64Array } {
  const r = new Float64Array(B);
  const t = draws.each("time", B, (rng, b) => {
    const [t1, t2] = [drawRf(c.times, rng), drawRf(c.times, rng)];
    const t = Math.max(t1, t2);
    r[b] = rng.uniform() < c.equal_fraction ? t : Math.min(t1, t2);
    return t;
  });
  return { t, r };
}

/** The student is conditioned on both ends of the interval, t and r. */
export const meanflowRoles = (recipe: Recipe): Roles => studentRoles(recipe, { secondTime: true });

export const meanflow = (c: MeanflowRecipe): Method => single(meanflowObjective(c), meanflowRoles);
