import { describe, expect, test } from "bun:test";
import { type Network, velocityNet } from "../../core/networks/network.ts";
import { wanNetwork } from "../harness/wan_net.ts";
import { hostValues, type DType } from "../../core/dtype.ts";
import { evaluate, guided, trigDenoiser } from "../../core/diffusion/predict.ts";
import { euler } from "../../core/samplers/euler.ts";
import { rcmRf, rcmTrig } from "../../core/samplers/rcm.ts";
import { expectDescending, fewStepTimes, midTimes, MOST_STEPS, teacherTimes } from "../../core/samplers/times.ts";
import { rfFromTrig } from "../../core/diffusion/path.ts";
import { studentPlan } from "../../core/networks/plan.ts";
import { combine } from "../../core/ops/lincomb.ts";
import { unipc } from "../../core/samplers/unipc.ts";
import type { Tensor } from "../../core/tensor.ts";
import { at } from "../../core/diffusion/predict.ts";
import { constant, Tape } from "../../core/tape.ts";
import { cpu } from "../harness/device.ts";
import { framesFirst, golden, relativeError } from "../harness/golden.ts";
import { goldenConfig } from "../harness/golden_wan.ts";
import { answered, type Answers } from "../harness/answer.ts";

type Velocity = NonNullable<Answers["velocity"]>;

const G = golden("samplers.safetensors");
const P = golden("rcm_losses_params.safetensors");
const values = (name: string): Float64Array => hostValues(framesFirst(G.get(name)));
const config = JSON.parse(G.metadata.config);

/** v(x, t) = x A^T + b sin 3t on the host. */
function analytic(): Velocity {
  const [A, b] = [values("A"), values("b")];
  const n = b.length;
  return (x, t) => {
    const v = x.values();
    const out = v.map((_, i) => {
      const [row, column] = [Math.floor(i / n), i % n];
      let sum = b[column] * Math.sin(3 * t);
      for (let k = 0; k < n; k++) sum += v[row * n + k] * A[column * n + k];
      return sum;
    });
    return cpu().fromValues(out, x.shape, "f64");
  };
}

describe("teacher samplers on an analytic field", () => {
  for (const [name, sampler] of [["euler", euler], ["unipc", unipc]] as const) {
    test(`${name}: every state of the trajectory`, () => {
      using _scope = cpu().scope();
      const times = teacherTimes(config.steps, config.shift, config.sigma_max);
      const stored = values(`${name}.sigmas`).slice(0, config.steps);
      expect(relativeError(times, stored)).toBeLessThan(1e-6);
      const states: number[][] = [];
      const start = cpu().fromHost(framesFirst(G.get("x_init"))).to("f64");
      const out = answered(sampler(start, stored), { velocity: analytic() }, ({ x }) => states.push([...x.values()]));
      states.push([...out.values()]);
      expect(relativeError(states.flat(), values(`${name}.traj`))).toBeLessThan(1e-5);
    });
  }

  test("convergence to the exact end: Euler of order 1, UniPC well below it", () => {
    using _scope = cpu().scope();
    const exact = values("ode_exact_end");
    const start = values("euler.sigmas")[0];
    const error = (sampler: typeof euler, steps: number): number => {
      const top = start / (config.shift - (config.shift - 1) * start);
      const times = Float64Array.from(
        { length: steps },
        (_, i) => (config.shift * top * (1 - i / steps)) / (1 + (config.shift - 1) * top * (1 - i / steps)),
      );
      const x = cpu().fromHost(framesFirst(G.get("x_init"))).to("f64");
      return relativeError(answered(sampler(x, times), { velocity: analytic() }).values(), exact);
    };
    expect(Math.log2(error(euler, 80) / error(euler, 160))).toBeGreaterThan(0.85);
    expect(error(unipc, 40)).toBeLessThan(error(euler, 40) / 4);
  });
});

describe("few-step times", () => {
  test("1 to 8 steps fall from atan(sigma_max) to 0; up to 4 as published", () => {
    expect([1, 2, 3, 4].map(midTimes)).toEqual([[], [1.5], [1.5, 1.4], [1.5, 1.4, 1.0]]);
    for (let steps = 1; steps <= MOST_STEPS; steps++) {
      const plan = studentPlan({ steps, sigmaMax: 80, midTimes: null, form: "rf", mode: "ode" });
      expect(plan.times.length).toBe(steps + 1);
      expect([plan.times[0], plan.times[steps]]).toEqual([Math.atan(80), 0]);
      expect([...plan.times].every((t, k) => k === 0 || t < plan.times[k - 1])).toBe(true);
    }
    for (const steps of [0, 9]) expect(() => midTimes(steps)).toThrow(expect.objectContaining({ code: "E_ARG" }));
  });
  test("times that rise, repeat without fresh noise or start above sigma_max are refused", () => {
    const refused =
      (midTimes: number[], mode: "sde" | "ode", sigmaMax = 80) =>
      () =>
        studentPlan({ steps: midTimes.length + 1, sigmaMax, midTimes, form: "rf", mode });
    for (const wrong of [
      refused([1, 1.4], "sde"), refused([1.3, 1.3], "ode"), refused([1.5], "sde", 1), refused([0], "sde"),
      refused([NaN], "sde"), refused([-1], "ode"),
    ])
      expect(wrong).toThrow(expect.objectContaining({ code: "E_ARG" }));
    expect(refused([1.3, 1.3, 1], "sde")().times.length).toBe(5);
    expect(() => studentPlan({ steps: 3, sigmaMax: 80, midTimes: [1], form: "rf", mode: "sde" })).toThrow(
      expect.objectContaining({ code: "E_ARG" }),
    );
    expectDescending([1, 0.5, 0.5, 0], true);
  });
});

describe("few-step samplers on an exact denoiser", () => {
  // Data concentrated on one point: x0 is known, so the velocity of any state is (x - x0) / t and every sampler must
  // end there.
  const point = [0.7, -1.2, 0.4, 2];
  test("any number of steps, both forms, both modes end at the point", () => {
    using _scope = cpu().scope();
    const target = cpu().fromValues(point, [1, 4], "f64");
    const init = cpu().fromValues([0.3, -0.8, 1.1, -0.2], [1, 4], "f64");
    const velocity: Velocity = (x, t) => combine([[1 / t, x], [-1 / t, target]]);
    for (const mode of ["sde", "ode"] as const) {
      for (let steps = 1; steps <= MOST_STEPS; steps++) {
        const times = fewStepTimes(steps, 80, midTimes(steps));
        const noise = mode === "ode" ? null : (k: number): Tensor => cpu().fromValues([k, 1, -k, 0.5], [1, 4], "f64");
        const field = { velocity, clean: () => combine([[1, target]]) };
        for (const sampler of [rcmRf, rcmTrig]) {
          const end = answered(sampler(init, times, noise), field).values();
          expect(relativeError(end, Float64Array.from(point))).toBeLessThan(1e-12);
        }
      }
    }
  });

  // x0(x) linear in x, so that the ODE's states matter; the trig state is the RF state over (cos + sin).
  test("the deterministic sampler is DDIM, the same in both forms but for the first input's factor", () => {
    using _scope = cpu().scope();
    const init = cpu().fromValues([0.3, -0.8, 1.1, -0.2], [1, 4], "f64");
    const times = fewStepTimes(6, 80, midTimes(6));
    const x0 = (x: Tensor, t: number): Tensor => combine([[0.6 * Math.cos(t) + 0.1, x]]);
    const got = answered(rcmTrig(init, times, null), { clean: x0 }).values();
    let state = [0.3, -0.8, 1.1, -0.2];
    for (let k = 0; k + 1 < times.length; k++) {
      const [t, next] = [times[k], times[k + 1]];
      const clean = state.map((v) => v * (0.6 * Math.cos(t) + 0.1));
      const eps = state.map((v, i) => (v - Math.cos(t) * clean[i]) / Math.sin(t));
      state = state.map((_, i) => Math.cos(next) * clean[i] + Math.sin(next) * eps[i]);
    }
    expect(relativeError(got, Float64Array.from(state))).toBeLessThan(1e-13);
    // In RF the state is x / (cos + sin) and the velocity (x - x0) / t.
    const trigOf = new Map(Array.from(times, (t) => [rfFromTrig(t), t]));
    const velocity: Velocity = (x, tRf) => {
      const t = trigOf.get(tRf) as number;
      const u = Math.cos(t) + Math.sin(t);
      return combine([[(1 - (0.6 * Math.cos(t) + 0.1) * u) / tRf, x]]);
    };
    const first = times[0];
    const scaled = combine([[1 / (Math.cos(first) + Math.sin(first)) / rfFromTrig(first), init]]);
    expect(relativeError(answered(rcmRf(scaled, times, null), { velocity }).values(), got)).toBeLessThan(1e-12);
  });
});

for (const [dtype, tolStudent, tolTeacher] of [["f32", 1e-4, 1e-3], ["f64", 1e-6, 1e-5]] as const) {
  describe(`network samplers, ${dtype}`, () => {
    const load = (role: string): Network => {
      const model = wanNetwork(cpu(), goldenConfig(JSON.stringify(config.wan)), {
        dtype: dtype as DType, residual: dtype as DType, checkpoint: "none", trainable: false,
      });
      model.load(P.under(`params.${role}.`), role);
      return model;
    };
    const up = (name: string): Tensor => cpu().fromHost(framesFirst(G.get(name))).to(dtype);
    const all = (x: Tensor, t: number): Float64Array => new Float64Array(x.shape[0]).fill(t);

    for (const steps of [1, 2, 4]) {
      test(`student, ${steps} step(s), both forms`, () => {
        using _scope = cpu().scope();
        const net = velocityNet(load("student"));
        const denoiser = trigDenoiser(net);
        const condition = up("condition");
        const times = fewStepTimes(steps, config.sigma_max, [1.5, 1.4, 1.0]);
        expect(relativeError(times, values(`rcm${steps}.trig_t`))).toBeLessThan(1e-6);
        const noise = (k: number): Tensor => up(`rcm${steps}.noise.${k}`);
        const clean = (x: Tensor, t: number): Tensor => evaluate(denoiser.x0, x, all(x, t), condition);
        const trig = answered(rcmTrig(up(`rcm${steps}.init_noise`), times, noise), { clean });
        expect(relativeError(trig.values(), values(`rcm${steps}.out`))).toBeLessThan(tolStudent);
        const velocity: Velocity = (x, t) =>
          net(new Tape(cpu(), { record: false }), constant(x), at(all(x, t)), condition).x;
        const rf = answered(rcmRf(up(`rcm${steps}.init_noise`), times, noise), { velocity });
        expect(relativeError(rf.values(), values(`rcm${steps}.out_rf_form`))).toBeLessThan(tolStudent);
      });
    }

    for (const [name, sampler] of [["Euler", euler], ["UniPC", unipc]] as const) {
      test(`guided teacher, 4 steps of ${name}`, () => {
        using _scope = cpu().scope();
        const net = velocityNet(load("teacher"));
        const condition = up("condition");
        const uncondition = up("teacher.uncondition");
        // The reference keeps sigmas and times in float32; the stored rounding is reproduced here.
        const times = teacherTimes(4, config.shift, config.sigma_max).map((t) => Math.fround(t));
        const guidedNet = guided({ field: net, x0: net }, 5, () => uncondition);
        const velocity: Velocity = (x, t) =>
          guidedNet.field(new Tape(cpu(), { record: false }), constant(x), at(all(x, t)), condition).x;
        const out = answered(sampler(up("teacher.init_noise"), times), { velocity });
        expect(relativeError(out.values(), values(`teacher.${name}.out`))).toBeLessThan(tolTeacher);
      });
    }
  });
}
