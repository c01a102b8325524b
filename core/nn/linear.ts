import type { DType } from "../dtype.ts";
import { linear as linearOp, type Weights } from "../ops/linear.ts";
import { linearGelu } from "../ops/linear_gelu.ts";
import type { ActivationKind } from "../ops/activation.ts";
import type { Tape, Var } from "../tape.ts";
import type { ParamSource } from "./params.ts";

const weightsOf = (params: ParamSource, name: string): Weights => ({
  w: params.get(`${name}.weight`),
  b: params.has(`${name}.bias`) ? params.get(`${name}.bias`) : null,
});

/** The linear layer `name.weight`, with `name.bias` if it exists. Shapes: x [..., K] -> [..., N]. */
export const dense = (tape: Tape, params: ParamSource, name: string, x: Var, dtype: DType | null = null): Var =>
  linearOp(tape, x, weightsOf(params, name), dtype);

/** The linear layer `name` followed by an activation, in one op. */
export const denseAct = (tape: Tape, params: ParamSource, name: string, x: Var, kind: ActivationKind): Var =>
  linearGelu(tape, x, weightsOf(params, name), kind);
