import { dcmLoss } from "../../losses/dcm.ts";
import type { DcmRecipe } from "../../recipe/schema.ts";
import { single, type Method, type Objective } from "../method.ts";

/** Discrete-time consistency over k Euler steps of the guided teacher. Source: rCM section 5 (dCM baseline), LCM. */
export const dcmObjective = (c: DcmRecipe): Objective => ({ recipe, nets, batch, draws }, tape) => {
  const u = draws.each("time", batch.x0.shape[0], (rng) => rng.uniform());
  const eps = draws.noise("noise", batch.x0);
  return dcmLoss(tape, nets.denoiser("student"), nets.guided("teacher"), batch, { u, eps }, {
    totalSteps: c.total_steps,
    skipSteps: c.skip_steps,
    shift: c.shift,
    scale: c.scale,
    onNonfinite: recipe.objective.on_nonfinite,
  });
};

export const dcm = (c: DcmRecipe): Method => single(dcmObjective(c));
