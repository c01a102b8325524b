/**
 * The two conventions of a noising path and the maps between them, in f64.
 *
 * Rectified flow (RF): x_t = (1 - tRf) x0 + tRf eps, tRf in [0, 1], velocity v = eps - x0.
 * TrigFlow:            x_t = cos(tTrig) x0 + sin(tTrig) eps, tTrig in [0, pi/2],
 *                      field F = dx_t/dtTrig = cos eps - sin x0.
 * Both equal a noise-to-signal ratio sigma = tRf / (1 - tRf) = tan(tTrig), up to a scale of x_t by cos + sin.
 * Source: sCM (arXiv 2410.11081) section 3; rCM (arXiv 2510.08431) appendix.
 */

const EPS = Number.EPSILON;

export const rfFromSigma = (sigma: number): number => sigma / (1 + sigma);
export const trigFromSigma = (sigma: number): number => Math.atan(sigma);
export const sigmaFromTrig = (tTrig: number): number => Math.tan(tTrig);
/** Units: RF times are clamped to [0, 1 - 2^-52], so that sigma stays finite. */
export const sigmaFromRf = (tRf: number): number => clampRf(tRf) / (1 - clampRf(tRf));
export const trigFromRf = (tRf: number): number => Math.atan(sigmaFromRf(tRf));
/** tan/(1 + tan), written so that it holds at pi/2. */
export const rfFromTrig = (tTrig: number): number => Math.sin(tTrig) / (Math.cos(tTrig) + Math.sin(tTrig));

const clampRf = (tRf: number): number => Math.min(Math.max(tRf, 0), 1 - EPS);

/** A value and its derivative with respect to tTrig. */
export interface Curve {
  value: Float64Array;
  rate: Float64Array;
}

/**
 * Coefficients of the TrigFlow wrapper around a velocity network, with u = cos + sin: network input scale, RF time, and
 * F = fieldX x + fieldV v, x0 = x0X x + x0V v.
 */
export interface TrigCoefficients {
  /** c_in = c_skip = 1/u. */
  input: Curve;
  /** RF time sin/u (the network sees it times its time scale). */
  rf: Curve;
  fieldX: Curve;
  fieldV: Curve;
  x0X: Curve;
  x0V: Curve;
}

/**
 * Coefficients that make a rectified-flow network a TrigFlow denoiser. fieldX = (cos - sin)/u and fieldV = 1/u are
 * (cos x - x0)/sin with the 1/sin cancelled analytically, so they hold at t = 0.
 * Source: rCM eq. for c_skip, c_out, c_in, c_noise.
 */
export function trigCoefficients(tTrig: Float64Array): TrigCoefficients {
  const curve = (value: (c: number, s: number) => number, rate: (c: number, s: number) => number): Curve => ({
    value: tTrig.map((t) => value(Math.cos(t), Math.sin(t))),
    rate: tTrig.map((t) => rate(Math.cos(t), Math.sin(t))),
  });
  const inverse = curve((c, s) => 1 / (c + s), (c, s) => -(c - s) / (c + s) ** 2);
  return {
    input: inverse,
    rf: curve((c, s) => s / (c + s), (c, s) => 1 / (c + s) ** 2),
    fieldX: curve((c, s) => (c - s) / (c + s), (c, s) => -2 / (c + s) ** 2),
    fieldV: inverse,
    x0X: inverse,
    x0V: curve((c, s) => -s / (c + s), (c, s) => -1 / (c + s) ** 2),
  };
}
