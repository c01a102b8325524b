/** Maps data values to plot positions, with the values to mark on the axis. */
export interface Scale {
  at: (value: number) => number;
  ticks: number[];
  log: boolean;
}

/** Ratio of largest to smallest value above which the axis is logarithmic. */
const LOG_RATIO = 30;

/** Steps of 1, 2 or 5 times a power of ten that span [low, high] with about `target` intervals. */
export function niceTicks(low: number, high: number, target: number): number[] {
  const raw = (high - low) / Math.max(1, target);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ([1, 2, 5, 10].find((m) => m * power >= raw * 0.999) ?? 10);
  const ticks: number[] = [];
  for (let i = Math.floor(low / step + 1e-9); i * step < high + step * (1 - 1e-9); i++) {
    ticks.push(Number((i * step).toPrecision(12)));
  }
  return ticks;
}

/** Linear scale over round ends; `zero` starts it at 0 and `cap` ends it at most there (for shares of 1). */
export function linearScale(
  values: number[],
  from: number,
  to: number,
  options: { zero?: boolean; cap?: number } = {},
): Scale {
  let low = Math.min(...values);
  let high = Math.max(...values);
  if (options.zero) low = Math.min(0, low);
  if (high - low < 1e-9 * Math.max(1, Math.abs(high))) {
    const room = Math.abs(high) * 0.1 || 0.1;
    if (!options.zero) low -= room;
    high += room;
  }
  const padding = (high - low) * 0.06;
  if (!options.zero) low -= low >= 0 ? Math.min(low, padding) : padding;
  high = options.cap !== undefined && high <= options.cap ? Math.min(options.cap, high + padding) : high + padding;
  const ticks = niceTicks(low, high, 5);
  const cap = options.cap;
  const kept = cap !== undefined && high <= cap ? ticks.filter((tick) => tick <= cap + 1e-12) : ticks;
  const first = kept[0];
  const last = kept[kept.length - 1];
  return { at: (value) => from + ((value - first) / (last - first)) * (to - from), ticks: kept, log: false };
}

/** Log scale marked at 1, 2 and 5 times powers of ten (powers only, over many decades). */
export function logScale(values: number[], from: number, to: number): Scale {
  const low = Math.log10(Math.min(...values));
  const high = Math.log10(Math.max(...values));
  const start = Math.floor(low);
  const end = Math.max(start + 1, Math.ceil(high));
  const marks = end - start > 3 ? [1] : [1, 2, 5];
  const all: number[] = [];
  for (let e = start; e <= end; e++) for (const m of marks) all.push(Number((m * 10 ** e).toPrecision(6)));
  // The axis runs from the last mark below the data to the first above.
  const below = all.findLastIndex((tick) => Math.log10(tick) <= low + 1e-12);
  const above = all.findIndex((tick) => Math.log10(tick) >= high - 1e-12);
  const ticks = all.slice(Math.max(0, below), above + 1 || undefined);
  if (ticks.length < 2) ticks.push(ticks[0] * 10);
  const first = Math.log10(ticks[0]);
  const last = Math.log10(ticks[ticks.length - 1]);
  return { at: (value) => from + ((Math.log10(value) - first) / (last - first)) * (to - from), ticks, log: true };
}

/** Linear from zero, or logarithmic when the `main` values differ by more than 30 times and all are positive. */
export function autoScale(values: number[], main: number[], from: number, to: number): Scale {
  const wide = Math.max(...main) / Math.min(...main) > LOG_RATIO;
  return wide && Math.min(...values) > 0 ? logScale(values, from, to) : linearScale(values, from, to, { zero: true });
}

/** Step counts on a log axis, marked at the counts that occur; a single count is in the middle. */
export function stepScale(steps: number[], from: number, to: number): Scale {
  const ticks = [...new Set(steps)].sort((a, b) => a - b);
  const low = Math.log2(ticks[0]);
  const high = Math.log2(ticks[ticks.length - 1]);
  const inset = (to - from) * 0.08;
  const at = (value: number): number =>
    high === low ? (from + to) / 2 : from + inset + ((Math.log2(value) - low) / (high - low)) * (to - from - 2 * inset);
  return { at, ticks, log: true };
}

/** Tick text with as few digits as distinguish the ticks. */
export function tickText(value: number, scale: Scale, percent: boolean): string {
  const factor = percent ? 100 : 1;
  const step = scale.log ? Math.abs(value) : scale.ticks[1] - scale.ticks[0];
  const digits = Math.max(0, Math.min(8, -Math.floor(Math.log10(step * factor) + 1e-9)));
  const big = Math.abs(value) * factor >= 1e6;
  return (big ? (value * factor).toExponential(0) : (value * factor).toFixed(digits)) + (percent ? "%" : "");
}
