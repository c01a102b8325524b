import type { ActivationKind } from "../../../core/ops/activation.ts";
import { activation } from "./activation.ts";
import { linear } from "./linear.ts";
import type { Plain } from "./plain.ts";

/** y = f(x w^T + b). Shapes: as linear. */
export const linearGelu = (x: Plain, w: Plain, b: Plain | null, kind: ActivationKind): Plain =>
  activation(linear(x, w, b), kind);
