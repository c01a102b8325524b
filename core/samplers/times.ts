import { rfFromSigma, trigFromSigma } from "../diffusion/path.ts";
import { shiftRf } from "../diffusion/time.ts";
import { RcmError } from "../error.ts";

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
  return Float64Array.from([trigFromSigma(sigmaMax), ...midTimes.slice(0, steps - 1), 0]);
}

/** Most steps of a few-step student. */
export const MOST_STEPS = 8;

/**
 * TrigFlow times between the first step and 0. Up to 4 steps: those of the public code. Beyond, ours: the times of the paper that are
 * not among them (1.3, 0.6, and the 0.3 that it adds for 8 steps), then 0.8 in the widest gap where the paper repeats a time; none
 * is repeated, so that the deterministic sampler gains from every step. Source: rCM public code and Table 4.
 */
export function midTimes(steps: number): number[] {
  if (steps < 1 || steps > MOST_STEPS) {
    throw new RcmError("E_ARG", "steps of a student", { op: "sampler", want: `1 to ${MOST_STEPS}`, got: steps });
  }
  if (steps <= 4) return [1.5, 1.4, 1.0].slice(0, steps - 1);
  return [1.5, 1.4, 1.0, 0.6, 0.3, 1.3, 0.8].slice(0, steps - 1).sort((a, b) => b - a);
}

/** Throws: E_ARG unless times fall (equal ones only where noise is fresh) from the first down to 0. */
export function expectDescending(times: ArrayLike<number>, repeats: boolean): void {
  const list = Array.from(times);
  const below = (t: number, before: number): boolean => t < before || (repeats && t === before && t > 0);
  if (list.every((t, k) => Number.isFinite(t) && t >= 0 && (k === 0 || below(t, list[k - 1])))) return;
  const how = repeats ? "" : "strictly ";
  throw new RcmError("E_ARG", `mid times descend ${how}between atan(sigma_max) and 0`, { op: "sampler", got: list });
}
