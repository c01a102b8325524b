import { drawTrig } from "../../diffusion/time.ts";
import { scmLoss } from "../../losses/scm.ts";
import type { ScmRecipe } from "../../recipe/schema.ts";
import { rampAt, single, type Method, type Objective } from "../method.ts";

/** Continuous-time consistency along the guided teacher's trajectories. Source: sCM Algorithm 1, rCM eq. 9. */
export const scmObjective = (c: ScmRecipe): Objective => ({ recipe, step, nets, batch, draws }, tape) => {
  const tTrig = draws.each("time", batch.x0.shape[0], (rng) => drawTrig(c.times, rng));
  const eps = draws.noise("noise", batch.x0);
  return scmLoss(tape, nets.denoiser("student"), nets.guided("teacher"), batch, { tTrig, eps }, {
    tangent: c.tangent,
    fdSize: c.fd_size,
    passes: c.passes,
    ramp: rampAt(step, c.tangent_warmup),
    rampScope: c.ramp_scope,
    scale: c.scale,
    precise: c.tangent_precision === "f32" ? nets.precise("student") : null,
    onNonfinite: recipe.objective.on_nonfinite,
  });
};

export const scm = (c: ScmRecipe): Method => single(scmObjective(c));
