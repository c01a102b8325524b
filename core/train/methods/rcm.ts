import type { DmdRecipe, Recipe } from "../../recipe/schema.ts";
import { studentRoles, type IterationKind, type Method, type Objective } from "../method.ts";
import { trained, type Roles } from "../role.ts";
import { criticMatching, distributionMatching } from "./distribution.ts";

/** Iterations at the start that train on consistency alone, for the length of sCM's tangent warm-up. */
const warmupOf = ({ objective: { consistency: c } }: Recipe): number => (c?.kind === "scm" ? c.tangent_warmup : 0);

/** Whether an iteration trains the student: all of the warm-up, then one in `student_every`. */
const studentTurn = (step: number, warmup: number, every: number): boolean =>
  step < warmup || (step - warmup) % every === 0;

/**
 * Score-regularized consistency: after a warm-up with the consistency objective alone, one iteration in `student_every`
 * trains the student on both terms, the others train the critic. `consistency` may be null (DMD2) or any trajectory
 * objective. Source: rCM (arXiv 2510.08431) Algorithm 1 and its public trainer.
 */
export const rcm = (
  consistency: Objective | null,
  c: DmdRecipe,
  roles: (recipe: Recipe) => Roles = studentRoles,
): Method => ({
  roles: (recipe) => ({ ...roles(recipe), critic: trained(c.critic, { start: "teacher" }) }),

  turn: (recipe, step) => (studentTurn(step, warmupOf(recipe), c.student_every) ? "student" : "critic"),

  *losses(it, turn) {
    if (turn === "critic") return yield it.loss((tape) => criticMatching(it, c, tape));
    if (consistency) yield it.loss((tape) => consistency(it, tape));
    if (it.step >= warmupOf(it.recipe)) yield it.loss((tape) => distributionMatching(it, c, tape));
  },

  updates(recipe, steps, role) {
    const warmup = warmupOf(recipe);
    const students = Math.min(warmup, steps) + Math.ceil(Math.max(0, steps - warmup) / c.student_every);
    return role === "student" ? students : steps - students;
  },

  emaCount(recipe, step, updates) {
    if (recipe.ema.counter === "updates") return updates;
    const warmup = warmupOf(recipe);
    return step < warmup ? step : warmup + Math.floor((step - warmup) / c.student_every);
  },

  kinds(recipe) {
    const [warmup, N, every] = [warmupOf(recipe), c.simulation_steps, c.student_every];
    const turns = [
      { role: "student", step: warmup, share: 1 / every },
      ...(every > 1 ? [{ role: "critic", step: warmup + 1, share: (every - 1) / every }] : []),
    ];
    const simulated = turns.flatMap(({ role, step, share }) =>
      Array.from({ length: N }, (_, i): IterationKind => ({
        name: `${role}, ${i + 1} simulation step${i === 0 ? "" : "s"}`,
        step,
        updates: i,
        share: share / N,
      }))
    );
    return [...(warmup > 0 ? [{ name: "student, warm-up", step: 0, updates: 0, share: 0 }] : []), ...simulated];
  },
});
