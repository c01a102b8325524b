import type { Device } from "../tensor.ts";

export interface StageReport {
  name: string;
  seconds: number;
  calls: number;
  /** Peak device memory in use during the stage, and peak reserved from the system. */
  peakBytes: number;
  reservedBytes: number;
}

/**
 * Wall time and peak device memory of each stage. An inner stage suspends the outer one, so that writing frames while
 * decoding counts as writing only.
 */
export class Stages {
  private readonly reports = new Map<string, StageReport>();
  private readonly open: string[] = [];
  private since = 0;

  constructor(
    readonly device: Device,
    private readonly now: () => number = () => performance.now(),
  ) {}

  run<T>(name: string, body: () => T): T {
    this.enter(name);
    try {
      return body();
    } finally {
      this.leave();
    }
  }

  async runAsync<T>(name: string, body: () => Promise<T>): Promise<T> {
    this.enter(name);
    try {
      return await body();
    } finally {
      this.leave();
    }
  }

  private enter(name: string): void {
    this.settle();
    this.open.push(name);
    const r = this.reports.get(name) ?? { name, seconds: 0, calls: 0, peakBytes: 0, reservedBytes: 0 };
    r.calls++;
    this.reports.set(name, r);
  }

  private leave(): void {
    this.settle();
    this.open.pop();
  }

  /** Adds the time and peak since the last change to the innermost stage. */
  private settle(): void {
    this.device.sync();
    const now = this.now();
    const top = this.reports.get(this.open[this.open.length - 1] ?? "");
    if (top) {
      const { peak, reservedPeak } = this.device.memory();
      top.seconds += (now - this.since) / 1000;
      top.peakBytes = Math.max(top.peakBytes, peak);
      top.reservedBytes = Math.max(top.reservedBytes, reservedPeak);
    }
    this.device.resetPeak();
    this.since = this.now();
  }

  seconds(...names: string[]): number {
    return names.reduce((sum, n) => sum + (this.reports.get(n)?.seconds ?? 0), 0);
  }

  report(): StageReport[] {
    return [...this.reports.values()];
  }
}
