export interface LrSchedule {
  lr: number;
  warmupSteps: number;
  /** Cosine decay over the last `decaySteps` of `totalSteps`, to lrMin; 0: none. */
  decaySteps: number;
  lrMin: number;
  totalSteps: number;
}

/** Initial factor of the warm-up. */
const START = 1e-6;

/**
 * Learning rate of update n (0-based): linear from 1e-6 lr to lr over warmupSteps, constant, then optional cosine
 * decay.
 */
export function learningRate(n: number, s: LrSchedule): number {
  if (n < s.warmupSteps) return s.lr * (START + ((1 - START) * n) / s.warmupSteps);
  const left = s.totalSteps - n;
  if (s.decaySteps <= 0 || left >= s.decaySteps) return s.lr;
  const done = Math.min(1, 1 - left / s.decaySteps);
  return s.lrMin + (s.lr - s.lrMin) * 0.5 * (1 + Math.cos(Math.PI * done));
}
