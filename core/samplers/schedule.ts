import { rfFromSigma } from "../diffusion/path.ts";
import { shiftRf } from "../diffusion/time.ts";

/**
 * RF times of a teacher sampler, descending, without the final 0: `steps` values of a shifted linear grid whose first is
 * sigmaMax. Units: tRf. Source: Wan2.1 flow schedulers.
 */
export function teacherTimes(steps: number, shift: number, sigmaMax: number): Float64Array {
  const top = rfFromSigma(sigmaMax);
  const unshifted = top / (shift - (shift - 1) * top);
  return Float64Array.from({ length: steps }, (_, i) => shiftRf(unshifted * (1 - i / steps), shift));
}

/** TrigFlow times of the few-step student: atan(sigmaMax), then the first steps-1 mid times, then 0. */
export function fewStepTimes(steps: number, sigmaMax: number, midTimes: readonly number[]): Float64Array {
  return Float64Array.from([Math.atan(sigmaMax), ...midTimes.slice(0, steps - 1), 0]);
}
