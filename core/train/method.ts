import type { Batch, LossResult } from "../losses/loss.ts";
import type { Recipe } from "../recipe/schema.ts";
import type { Tape } from "../tape.ts";
import type { Draws } from "./draws.ts";
import type { Nets } from "./nets.ts";
import { frozen, trained, type RoleName, type Roles, type RoleSpec } from "./role.ts";

/** The student and, where the recipe has one, its teacher. */
export const studentRoles = (recipe: Recipe, student: Partial<RoleSpec> = {}): Roles => ({
  ...(recipe.teacher && { teacher: frozen() }),
  student: trained(recipe.optimizer, { ema: true, ...student }),
});

/** Everything that a method needs to compute the losses of one micro-batch. */
export interface Iteration {
  recipe: Recipe;
  step: number;
  /** Optimizer updates so far of the role that this iteration trains. */
  updates: number;
  nets: Nets;
  batch: Batch;
  draws: Draws;
  /** Computes one loss on a new tape. Once yielded, it is backpropagated and freed before the next one is computed. */
  loss(compute: (tape: Tape) => LossResult): RecordedLoss;
}

export interface RecordedLoss {
  tape: Tape;
  result: LossResult;
}

/** One kind of iteration, for dry runs: its name, a step at which it occurs, and how often. */
export interface IterationKind {
  name: string;
  step: number;
  updates: number;
  /** Fraction of the iterations after the warm-up. */
  share: number;
}

/** A training method: pure functions of recipe and step, without state. */
export interface Method {
  roles(recipe: Recipe): Roles;
  /** The role that an iteration trains. */
  turn(recipe: Recipe, step: number): RoleName;
  /** Updates of a role in the first `steps` iterations. */
  updates(recipe: Recipe, steps: number, role: RoleName): number;
  /** Student updates as the EMA's decay counts them; the public code counts them differently from `updates`. */
  emaCount(recipe: Recipe, step: number, updates: number): number;
  losses(it: Iteration, turn: RoleName): Generator<RecordedLoss>;
  kinds(recipe: Recipe): IterationKind[];
}

/** A loss of the student. */
export type Objective = (it: Iteration, tape: Tape) => LossResult;

/** A method that trains the student alone, on one loss. */
export const single = (objective: Objective, roles: (recipe: Recipe) => Roles = studentRoles): Method => ({
  roles,
  turn: () => "student",
  updates: (_recipe, steps, role) => (role === "student" ? steps : 0),
  emaCount: (_recipe, _step, updates) => updates,
  *losses(it) {
    yield it.loss((tape) => objective(it, tape));
  },
  kinds: () => [{ name: "student", step: 0, updates: 0, share: 1 }],
});

/** Tangent warm-up factor r in [0, 1]. */
export const rampAt = (step: number, warmup: number): number => (warmup > 0 ? Math.min(1, step / warmup) : 1);
