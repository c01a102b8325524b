import { RcmError } from "../../error.ts";
import type { Recipe } from "../../recipe/schema.ts";
import { studentRoles, type Method, type Objective } from "../method.ts";
import type { Roles } from "../role.ts";
import { dcm, dcmObjective } from "./dcm.ts";
import { dmd } from "./dmd.ts";
import { flow } from "./flow.ts";
import { meanflow, meanflowObjective, meanflowRoles } from "./meanflow.ts";
import { rcm } from "./rcm.ts";
import { scm, scmObjective } from "./scm.ts";

/** The training method of a recipe's objective section. */
export function methodOf({ objective: { consistency: c, dmd: regularizer } }: Recipe): Method {
  if (c?.kind === "flow") return flow(c);
  if (!regularizer) {
    if (c?.kind === "scm") return scm(c);
    if (c?.kind === "dcm") return dcm(c);
    if (c?.kind === "meanflow") return meanflow(c);
    const message = "objective: found neither consistency nor dmd, allowed one of them or both";
    throw new RcmError("E_RECIPE", message, { op: "recipe" });
  }
  if (!c) return dmd(regularizer);
  const regularized = (objective: Objective, roles: (recipe: Recipe) => Roles = studentRoles): Method =>
    rcm(objective, regularizer, roles);
  if (c.kind === "scm") return regularized(scmObjective(c));
  if (c.kind === "dcm") return regularized(dcmObjective(c));
  return regularized(meanflowObjective(c), meanflowRoles);
}
