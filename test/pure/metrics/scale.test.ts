import { describe, expect, test } from "bun:test";
import {
  autoScale, linearScale, logScale, niceTicks, stepScale, tickText,
} from "../../../core/metrics/report_scale.ts";
import { lcg } from "./data.ts";

describe("plot scales", () => {
  test("ticks are round and span the data", () => {
    expect(niceTicks(0, 8.3, 5)).toEqual([0, 2, 4, 6, 8, 10]);
    expect(niceTicks(0.52, 0.87, 5)).toEqual([0.5, 0.6, 0.7, 0.8, 0.9]);
    const random = lcg(5);
    for (let i = 0; i < 300; i++) {
      const low = (random() - 0.5) * 10 ** Math.floor(8 * random() - 4);
      const high = low + random() * 10 ** Math.floor(8 * random() - 4) + 1e-6;
      const ticks = niceTicks(low, high, 5);
      expect(ticks[0]).toBeLessThanOrEqual(low + 1e-9 * Math.abs(low));
      expect(ticks[ticks.length - 1]).toBeGreaterThanOrEqual(high - 1e-9 * Math.abs(high));
      expect(ticks.length).toBeLessThanOrEqual(9);
    }
  });

  test("values land inside the plot, shares stop at 1, distances start at 0", () => {
    const share = linearScale([0.93, 1], 0, 100, { cap: 1 });
    expect(share.ticks[share.ticks.length - 1]).toBe(1);
    expect(share.at(1)).toBe(100);
    expect(linearScale([3, 7], 0, 100, { zero: true }).at(0)).toBe(0);
    for (const scale of [
      linearScale([5], 0, 100), linearScale([0], 0, 100), linearScale([1], 0, 100, { cap: 1 }), logScale([3], 0, 100),
      linearScale([1e12, 2e12], 0, 100),
    ]) {
      for (const tick of scale.ticks) expect(Number.isFinite(scale.at(tick))).toBe(true);
      expect(scale.ticks.length).toBeGreaterThan(1);
    }
  });

  test("wide positive ranges turn logarithmic, and only those", () => {
    expect(autoScale([1, 31], [1, 31], 0, 1).log).toBe(true);
    expect(autoScale([1, 29], [1, 29], 0, 1).log).toBe(false);
    expect(autoScale([0.01, 1, 29], [1, 29], 0, 1).log).toBe(false);
    expect(autoScale([-1, 1, 100], [1, 100], 0, 1).log).toBe(false);
    const scale = logScale([0.3, 70], 0, 100);
    expect([scale.ticks[0], scale.ticks[scale.ticks.length - 1]]).toEqual([0.2, 100]);
    expect([scale.at(0.2), scale.at(100)]).toEqual([0, 100]);
  });

  test("each doubling of steps takes the same room", () => {
    const scale = stepScale([4, 1, 2, 1], 0, 100);
    expect(scale.ticks).toEqual([1, 2, 4]);
    expect(scale.at(2) - scale.at(1)).toBeCloseTo(scale.at(4) - scale.at(2), 10);
    expect(stepScale([3], 0, 100).at(3)).toBe(50);
  });

  test("tick texts have as many decimals as the ticks need", () => {
    const share = linearScale([0.52, 0.87], 0, 1, { cap: 1 });
    expect(share.ticks.map((tick) => tickText(tick, share, false))).toContain("0.6");
    expect(share.ticks.map((tick) => tickText(tick, share, true))).toContain("60%");
    const log = logScale([0.2, 20], 0, 1);
    expect(log.ticks.map((tick) => tickText(tick, log, false))).toEqual(["0.2", "0.5", "1", "2", "5", "10", "20"]);
  });
});
