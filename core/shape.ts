/**
 * Legend of the letters in `Shapes:` lines and of the locals that hold a size; axes are listed outermost first.
 *
 *   B batch          L tokens          M context (text) tokens   D model width      H heads     K head width
 *   F mlp hidden     C latent channels T latent frames           Y latent rows      X latent columns
 *   P patch volume   S modulation slots N any flat axis
 *
 * The tangent of x is `xDot`, its cotangent `xBar`. A time names its convention: `tRf` in [0, 1], `tTrig` in [0, pi/2],
 * `sigma` in [0, inf).
 */

/** Number of elements of one sample. */
export const perSample = (shape: readonly number[]): number => shape.slice(1).reduce((n, d) => n * d, 1);
