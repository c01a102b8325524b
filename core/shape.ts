/**
 * Legend of shape suffixes. A name such as `x_BLD` says which axes a tensor has, outermost first:
 *
 *   B batch          L tokens          M context (text) tokens   D model width      H heads     K head width
 *   F mlp hidden     C latent channels T latent frames           Y latent rows      X latent columns
 *   P patch volume   S modulation slots N any flat axis
 *
 * A tangent is `xDot_BLD`, a cotangent `xBar_BLD`. Times name their convention: `tRf_B` in [0, 1], `tTrig_B` in
 * [0, pi/2], `sigma_B` in [0, inf).
 */
export type LatentShape = readonly [B: number, C: number, T: number, Y: number, X: number];

/** Elements of one sample. */
export const perSample = (shape: readonly number[]): number => shape.slice(1).reduce((n, d) => n * d, 1);
