export type { WeightKind } from "../models/wan/layouts.ts";
export { readWeights, resolveWeights } from "../weights/open.ts";
