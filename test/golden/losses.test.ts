import { expect, test } from "bun:test";
import { hostValues } from "../../core/dtype.ts";
import { rfFromTrig, sigmaFromTrig, trigCoefficients } from "../../core/diffusion/path.ts";
import { cpu, type TestFunction } from "../harness/device.ts";
import { golden, relativeError } from "../harness/golden.ts";
import { goldenLosses } from "../harness/golden_losses.ts";

goldenLosses(cpu, test as TestFunction);

const G = golden("rcm_losses.safetensors");
const values = (name: string): Float64Array => hostValues(G.get(name));

test("wrapper coefficients and time maps", () => {
  const t = values("table.trig_t");
  const c = trigCoefficients(t);
  expect(relativeError(c.input.value, values("table.c_in"))).toBeLessThan(1e-6);
  expect(relativeError(c.x0X.value, values("table.c_skip"))).toBeLessThan(1e-6);
  expect(relativeError(c.x0V.value, values("table.c_out"))).toBeLessThan(1e-6);
  expect(relativeError(c.rf.value.map((v) => 1000 * v), values("table.c_noise"))).toBeLessThan(1e-6);
  expect(relativeError(t.map(rfFromTrig), values("table.rf_t"))).toBeLessThan(1e-6);
  const sigma = values("table.sigma");
  t.forEach((v, i) => v < 1.57 && expect(Math.abs(sigmaFromTrig(v) / sigma[i] - 1)).toBeLessThan(1e-4));
});

test("rates of the wrapper coefficients are their derivatives", () => {
  const h = 1e-6;
  for (const t of [0.01, 0.4, 1, 1.5]) {
    const [mid, up, down] = [t, t + h, t - h].map((v) => trigCoefficients(Float64Array.of(v)));
    for (const key of ["input", "rf", "fieldX", "fieldV", "x0X", "x0V"] as const) {
      expect(mid[key].rate[0]).toBeCloseTo((up[key].value[0] - down[key].value[0]) / (2 * h), 7);
    }
  }
});
