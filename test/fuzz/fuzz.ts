import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { RcmError } from "../../core/error.ts";
import { Rng } from "../../core/rng.ts";
import { asking, watchArrays } from "./guard.ts";
import type { Input, Target } from "./targets.ts";

/** What one input may cost. Arrays: as many bytes as the input has, times these, above the floor. */
export const LIMITS = { cpuMs: 2000, largestTimes: 16, totalTimes: 512, floor: 1 << 20, residentBytes: 512 * 2 ** 20 };

export interface Outcome {
  inputs: number;
  /** How often each ended: "value", or the code of an RcmError. */
  ends: Record<string, number>;
  slowestMs: number;
  largestArray: number;
  findings: Finding[];
}

export interface Finding {
  target: string;
  index: number;
  what: string;
  input: Input;
}

/** Input number `index` of a target; a pure function of seed and index, so that a finding can be made again. */
export const inputOf = (target: Target, seed: number, index: number): Input => target.make(new Rng(seed, index));

/** Writes the files of an input. */
export function place(folder: string, input: Input): void {
  mkdirSync(folder, { recursive: true });
  for (const [name, data] of input) writeFileSync(join(folder, name), data);
}

/**
 * Feeds inputs [first, first + count) to a target: each must end in a value or an RcmError, soon, and without asking
 * for much memory.
 */
export function fuzz(
  target: Target, seed: number, first: number, count: number,
  o: { onInput?: (index: number) => void; cpuMs?: number } = {},
): Outcome {
  const cpuMs = o.cpuMs ?? LIMITS.cpuMs;
  const folder = mkdtempSync(join(tmpdir(), "rcm-fuzz-"));
  const outcome: Outcome = { inputs: 0, ends: {}, slowestMs: 0, largestArray: 0, findings: [] };
  const before = process.memoryUsage().rss;
  using _watch = watchArrays();
  try {
    for (let index = first; index < first + count; index++) {
      o.onInput?.(index);
      const input = inputOf(target, seed, index);
      place(folder, input);
      const found = (what: string): void => void outcome.findings.push({ target: target.name, index, what, input });
      const size = [...input.values()].reduce((n, b) => n + b.length, 0);
      const start = process.cpuUsage();
      const { result: end, asked } = asking(() => endOf(target, folder));
      const used = process.cpuUsage(start);
      const ms = (used.user + used.system) / 1000;
      outcome.inputs++;
      outcome.ends[end.kind] = (outcome.ends[end.kind] ?? 0) + 1;
      outcome.slowestMs = Math.max(outcome.slowestMs, ms);
      outcome.largestArray = Math.max(outcome.largestArray, asked.largest);
      if (end.stack !== null) found(end.stack);
      if (ms > cpuMs) found(`took ${ms.toFixed(0)} ms`);
      if (asked.largest > LIMITS.floor + LIMITS.largestTimes * size)
        found(`asked for an array of ${asked.largest} bytes; the input has ${size}`);
      if (asked.total > 16 * LIMITS.floor + LIMITS.totalTimes * size)
        found(`asked for ${asked.total} bytes in all; the input has ${size}`);
      const grown = process.memoryUsage().rss - before;
      if (grown > LIMITS.residentBytes) {
        Bun.gc(true);
        if (process.memoryUsage().rss - before > LIMITS.residentBytes) {
          found(`the process grew by ${grown} bytes`);
          break;
        }
      }
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return outcome;
}

function endOf(target: Target, folder: string): { kind: string; stack: string | null } {
  try {
    target.run(folder);
    return { kind: "value", stack: null };
  } catch (error) {
    if (error instanceof RcmError && error.code !== "E_INTERNAL") return { kind: error.code, stack: null };
    return { kind: "other", stack: `${(error as Error)?.stack ?? error}` };
  }
}
