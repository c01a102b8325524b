import type { Role, RoleName } from "./role.ts";

/** What a run carries from one iteration to the next, and what a checkpoint holds. */
export interface TrainState {
  /** Iterations done. */
  step: number;
  /** Samples dropped so far because their target was not finite. */
  skipped: number;
  readonly roles: ReadonlyMap<RoleName, Role>;
}
