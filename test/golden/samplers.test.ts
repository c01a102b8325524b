import { describe, expect, test } from "bun:test";
import { hostValues, type DType } from "../../core/dtype.ts";
import { evaluate, guided, trigDenoiser } from "../../core/diffusion/predict.ts";
import { WanModel } from "../../core/models/wan/model.ts";
import { euler, type Velocity } from "../../core/samplers/euler.ts";
import { rcmRf, rcmTrig } from "../../core/samplers/rcm.ts";
import { fewStepTimes, teacherTimes } from "../../core/samplers/schedule.ts";
import { unipc } from "../../core/samplers/unipc.ts";
import type { Tensor } from "../../core/tensor.ts";
import { at } from "../../core/diffusion/predict.ts";
import { constant, Tape } from "../../core/tape.ts";
import { velocityNet } from "../../core/train/nets.ts";
import { cpu } from "../harness/device.ts";
import { golden, relativeError } from "../harness/golden.ts";
import { goldenConfig } from "../harness/golden_wan.ts";

const G = golden("samplers.safetensors");
const P = golden("rcm_losses_params.safetensors");
const values = (name: string): Float64Array => hostValues(G.get(name));
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
      const out = sampler(analytic(), cpu().fromHost(G.get("x_init")).to("f64"), stored, (_, x) => states.push([...x.values()]));
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
      const times = Float64Array.from({ length: steps }, (_, i) => (config.shift * top * (1 - i / steps)) / (1 + (config.shift - 1) * top * (1 - i / steps)));
      return relativeError(sampler(analytic(), cpu().fromHost(G.get("x_init")).to("f64"), times).values(), exact);
    };
    expect(Math.log2(error(euler, 80) / error(euler, 160))).toBeGreaterThan(0.85);
    expect(error(unipc, 40)).toBeLessThan(error(euler, 40) / 4);
  });
});

for (const [dtype, tolStudent, tolTeacher] of [["f32", 1e-4, 1e-3], ["f64", 1e-6, 1e-5]] as const) {
  describe(`network samplers, ${dtype}`, () => {
    const load = (role: string): WanModel => {
      const model = WanModel.create(cpu(), goldenConfig(JSON.stringify(config.wan)), { dtype: dtype as DType, residual: dtype as DType, checkpoint: "none", trainable: false });
      model.load(P.under(`params.${role}.`), role);
      return model;
    };
    const up = (name: string): Tensor => cpu().fromHost(G.get(name)).to(dtype);
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
        const trig = rcmTrig((x, t) => evaluate(denoiser.x0, x, all(x, t), condition), up(`rcm${steps}.init_noise`), times, noise);
        expect(relativeError(trig.values(), values(`rcm${steps}.out`))).toBeLessThan(tolStudent);
        const velocity: Velocity = (x, t) => net(new Tape(cpu(), { record: false }), constant(x), at(all(x, t)), condition).x;
        const rf = rcmRf(velocity, up(`rcm${steps}.init_noise`), times, noise);
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
        const velocity: Velocity = (x, t) => guidedNet.field(new Tape(cpu(), { record: false }), constant(x), at(all(x, t)), condition).x;
        const out = sampler(velocity, up("teacher.init_noise"), times);
        expect(relativeError(out.values(), values(`teacher.${name}.out`))).toBeLessThan(tolTeacher);
      });
    }
  });
}
