/**
 * Exponent of the power-function EMA of relative width s: the largest real root of
 * x^3 + 7 x^2 + (16 - s^-2) x + (12 - s^-2).
 * Source: Karras et al. 2024 (EDM2) eq. 126.
 */
export function powerEmaGamma(length: number): number {
  const q = length ** -2;
  const f = (x: number): number => ((x + 7) * x + (16 - q)) * x + (12 - q);
  const slope = (x: number): number => (3 * x + 14) * x + (16 - q);
  // Beyond the largest root the cubic is increasing and convex: Newton from the right converges monotonically.
  let x = Math.max(10, 2 / length);
  for (let i = 0; i < 200; i++) {
    const next = x - f(x) / slope(x);
    if (Math.abs(next - x) <= 1e-15 * Math.abs(next)) return next;
    x = next;
  }
  return x;
}

/** Decay of update `it` (0-based): (1 - 1/(it + 1))^(gamma + 1), 0 for the first. */
export const powerEmaBeta = (gamma: number, it: number): number => (it < 1 ? 0 : (1 - 1 / (it + 1)) ** (gamma + 1));
