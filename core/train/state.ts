import type { Role, RoleName } from "./role.ts";

/** State of a run between iterations, as stored in a checkpoint. */
export interface TrainState {
  /** Iterations done. */
  step: number;
  /** Samples dropped so far because their target was not finite. */
  skipped: number;
  readonly roles: ReadonlyMap<RoleName, Role>;
}
