import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import {
  rfFromSigma, rfFromTrig, sigmaFromRf, sigmaFromTrig, trigFromRf, trigFromSigma,
} from "../../core/diffusion/path.ts";
import { shiftRf } from "../../core/diffusion/time.ts";
import { powerEmaBeta, powerEmaGamma } from "../../core/optim/ema.ts";
import { learningRate } from "../../core/optim/lr.ts";
import { fewStepTimes, teacherTimes } from "../../core/samplers/times.ts";
import { GOLDEN_DIR } from "../harness/golden.ts";

const S = JSON.parse(readFileSync(join(GOLDEN_DIR, "schedules.json"), "utf8"));

/** |a - b| <= rtol |b|, with an absolute floor for values at zero. */
function close(got: ArrayLike<number>, want: number[], rtol: number): void {
  expect(got.length).toBe(want.length);
  want.forEach((w, i) => {
    if (!(Math.abs(got[i] - w) <= rtol * Math.abs(w) + 1e-15)) throw new Error(`value ${i}: got ${got[i]}, want ${w}`);
  });
}

describe("schedules against the public reference", () => {
  test("power-function EMA", () => {
    for (const c of S.ema.cases) {
      close([powerEmaGamma(c.s)], [c.gamma], 1e-9);
      for (const [it, beta] of Object.entries(c.beta as Record<string, number>))
        close([powerEmaBeta(c.gamma, Number(it))], [beta], 1e-9);
    }
  });

  test("uniform with shift", () => {
    for (const c of S.uniform_shift.cases) {
      const rf = c.u.map((u: number) => shiftRf(u, c.shift));
      close(rf, c.rf, 1e-9);
      close(rf.map(trigFromRf), c.trig, 1e-9);
    }
  });

  test("log-normal", () => {
    for (const c of S.log_normal.cases) {
      const sigma = c.z.map((z: number) => Math.exp(c.p_mean + c.p_std * z));
      close(sigma, c.sigma, 1e-9);
      close(sigma.map(rfFromSigma), c.rf, 1e-9);
      close(sigma.map(trigFromSigma), c.trig, 1e-9);
    }
  });

  test("time maps", () => {
    close(S.from_sigma.sigma.map(rfFromSigma), S.from_sigma.rf, 1e-9);
    close(S.from_sigma.sigma.map(trigFromSigma), S.from_sigma.trig, 1e-9);
    close(S.from_trig.trig.map(sigmaFromTrig), S.from_trig.sigma, 1e-9);
    close(S.from_trig.trig.map(rfFromTrig), S.from_trig.rf, 1e-9);
    close(S.from_trig.trig.map(rfFromTrig), S.from_trig.rf_sincos, 1e-9);
    close(S.from_rf.rf.map(sigmaFromRf), S.from_rf.sigma, 1e-9);
    close(S.from_rf.rf.map(trigFromRf), S.from_rf.trig, 1e-9);
  });

  test("teacher sampler times", () => {
    for (const c of S.samplers.cases) {
      const times = teacherTimes(c.steps, c.shift, c.sigma_max);
      close(times, c.euler_f64.sigmas, 1e-9);
      close(times.map((t) => 1000 * t), c.euler_f64.timesteps, 1e-9);
      close(times, c.euler_ref.sigmas, 1e-6);
      close(times, c.unipc_ref.sigmas.slice(0, c.steps), 1e-6);
    }
  });

  test("few-step times", () => {
    for (const c of S.few_step) {
      const times = fewStepTimes(c.steps, c.sigma_max, c.mid_t ?? [1.5, 1.4, 1.0]);
      close(times, c.trig, 1e-9);
      close(Array.from(times, (t) => (t === 0 ? 0 : rfFromTrig(t))), c.rf, 1e-9);
    }
  });

  test("learning-rate warm-up", () => {
    for (const c of S.lr_lambda_linear.cases) {
      const [warmupSteps] = c.config.warm_up_steps;
      if (
        c.config.f_start !== undefined &&
        (c.config.f_start[0] !== 1e-6 || c.config.f_min[0] !== c.config.f_max[0] || c.config.warm_up_steps.length !== 1)
      )
        continue;
      for (const [n, f] of Object.entries(c.values as Record<string, number>)) {
        close(
          [learningRate(Number(n), { lr: c.config.f_max[0], warmupSteps, decaySteps: 0, lrMin: 0, totalSteps: 1e9 })],
          [f],
          1e-9,
        );
      }
    }
  });
});
