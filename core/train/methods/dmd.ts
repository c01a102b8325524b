import type { DmdRecipe } from "../../recipe/schema.ts";
import type { Method } from "../method.ts";
import { rcm } from "./rcm.ts";

/** Distribution matching alone: rCM without a consistency term. Source: DMD2 (arXiv 2405.14867). */
export const dmd = (c: DmdRecipe): Method => rcm(null, c);
