import { rfFromSigma, trigFromSigma } from "../diffusion/path.ts";
import { shiftRf } from "../diffusion/time.ts";
import { RcmError } from "../error.ts";

/**
 * RF times of a teacher sampler, descending, without the final 0: a shifted linear grid of `steps` values that starts
 * at sigmaMax. Units: tRf. Source: Wan2.1 flow schedulers.
 */
export function teacherTimes(steps: number, shift: number, sigmaMax: number): Float64Array {
  const top = rfFromSigma(sigmaMax);
  const unshifted = top / (shift - (shift - 1) * top);
  return Float64Array.from({ length: steps }, (_, i) => shiftRf(unshifted * (1 - i / steps), shift));
}

/** TrigFlow times of the few-step student: atan(sigmaMax), then the first steps-1 mid times, then 0. */
export function fewStepTimes(steps: number, sigmaMax: number, midTimes: readonly number[]): Float64Array {
  return Float64Array.from([trigFromSigma(sigmaMax), ...midTimes.slice(0, steps - 1), 0]);
}

/** Largest number of steps of a few-step student. */
export const MOST_STEPS = 8;

/**
 * TrigFlow times between the first step and 0. Up to 4 steps they are those of the public code. Above, the paper's
 * further times are added (1.3, 0.6, and 0.3 for 8 steps), then 0.8 in the widest gap. The paper repeats a time there;
 * without repeats the deterministic sampler gains from every step. Source: rCM public code and Table 4.
 */
export function midTimes(steps: number): number[] {
  if (steps < 1 || steps > MOST_STEPS) {
    throw new RcmError("E_ARG", "steps of a student", { op: "sampler", want: `1 to ${MOST_STEPS}`, got: steps });
  }
  if (steps <= 4) return [1.5, 1.4, 1.0].slice(0, steps - 1);
  return [1.5, 1.4, 1.0, 0.6, 0.3, 1.3, 0.8].slice(0, steps - 1).sort((a, b) => b - a);
}

/** Throws: E_ARG unless times descend to 0; equal ones are allowed with `repeats`, when each step draws new noise. */
export function expectDescending(times: ArrayLike<number>, repeats: boolean): void {
  const list = Array.from(times);
  const below = (t: number, before: number): boolean => t < before || (repeats && t === before && t > 0);
  if (list.every((t, k) => Number.isFinite(t) && t >= 0 && (k === 0 || below(t, list[k - 1])))) return;
  const how = repeats ? "" : "strictly ";
  throw new RcmError("E_ARG", `mid times descend ${how}between atan(sigma_max) and 0`, { op: "sampler", got: list });
}
