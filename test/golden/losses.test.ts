import { describe, expect, test } from "bun:test";
import { evaluate, guided, trigDenoiser } from "../../core/diffusion/predict.ts";
import { rfFromTrig, sigmaFromTrig, trigCoefficients } from "../../core/diffusion/path.ts";
import { hostValues } from "../../core/dtype.ts";
import { criticLoss } from "../../core/losses/critic.ts";
import { dcmLoss } from "../../core/losses/dcm.ts";
import { dmdLoss, type DmdDraws } from "../../core/losses/dmd.ts";
import type { LossResult } from "../../core/losses/loss.ts";
import { scmLoss, scmParts, type ScmDraws, type ScmOptions } from "../../core/losses/scm.ts";
import { simulate } from "../../core/losses/simulate.ts";
import { Tape } from "../../core/tape.ts";
import type { Device, Tensor } from "../../core/tensor.ts";
import { type Network, velocityNet } from "../../core/networks/network.ts";
import { onEachDevice } from "../harness/device.ts";
import { framesFirst, golden, relativeError } from "../harness/golden.ts";
import { goldenConfig } from "../harness/golden_wan.ts";
import { wanNetwork } from "../harness/wan_net.ts";

/** Every loss of the public reference, its parts and its gradients. */

const G = golden("rcm_losses.safetensors");
const P = golden("rcm_losses_params.safetensors");
const values = (name: string): Float64Array => hostValues(framesFirst(G.get(name)));

/** Tolerances of the set's metadata for f32; in f64 what float32 storage leaves. */
const TOL = {
  f32: { value: 1e-4, tangent: 2e-4, fd: 5e-3, loss: 2e-4, grad: 5e-4 },
  f64: { value: 3e-7, tangent: 1e-6, fd: 1e-5, loss: 1e-6, grad: 2e-6 },
} as const;

/** The three networks and the batch of the vectors. */
function setup(device: Device, dtype: "f32" | "f64") {
  const net = (role: string, trainable: boolean): Network => {
    const options = { dtype, residual: dtype, checkpoint: "none", trainable } as const;
    const model = wanNetwork(device, goldenConfig(G.metadata.config), options);
    model.load(P.under(`params.${role}.`), role);
    return model;
  };
  const up = (name: string): Tensor => device.fromHost(framesFirst(G.get(name))).to(dtype);
  const models = { student: net("student", true), teacher: net("teacher", false), critic: net("critic", true) };
  const unconditional = up("uncondition");
  const plainTeacher = trigDenoiser(velocityNet(models.teacher));
  return {
    device, models, up, tol: TOL[dtype],
    student: trigDenoiser(velocityNet(models.student)),
    critic: trigDenoiser(velocityNet(models.critic)),
    plainTeacher,
    teacher: guided(plainTeacher, Number(G.metadata.guidance), () => unconditional),
    batch: { x0: up("x0"), condition: up("condition") },
  };
}
type Setup = ReturnType<typeof setup>;

/** Declares tests for every device and for f32 and f64, each with networks of its own. */
function onEachSetup(what: string, declare: (test: (name: string, body: (s: Setup) => void) => void) => void): void {
  onEachDevice((device, test) => {
    for (const dtype of ["f32", "f64"] as const) {
      describe(`${what} against the public reference, ${dtype}`, () => {
        declare((name, body) => test(name, () => {
          using _scope = device().scope();
          body(setup(device(), dtype));
        }));
      });
    }
  });
}

/** `got` against the stored values of that name. */
function expectClose(name: string, got: Float64Array, tolerance: number): void {
  const error = relativeError(got, values(name));
  expect({ name, error, close: error < tolerance }).toMatchObject({ close: true });
}

/** The settings that a kind of loss is stored for, from names like `dcm_k3.xk`. */
function settings(kind: string, part: string): string[] {
  const names = G.names.filter((n) => n.startsWith(kind) && n.endsWith(`.${part}`));
  if (names.length === 0) throw new Error(`no ${kind}*.${part} in the vectors`);
  return names.map((n) => n.slice(kind.length, -part.length - 1));
}

/** Backpropagates the sum of the per-sample losses and compares with the stored loss and gradients. */
function expectLoss(s: Setup, name: string, model: Network, tape: Tape, result: LossResult): void {
  expectClose(`${name}.loss_per_sample`, result.loss.x.values(), s.tol.loss);
  expect(result.skipped).toBe(0);
  const B = result.loss.x.numel;
  model.params.zeroGrad();
  tape.backward(result.loss, s.device.fromValues(new Float64Array(B).fill(1), [B], "f64"));
  const grad = model.params.grad as Tensor;
  const stored = G.names.filter((n) => n.startsWith(`${name}.grads.`));
  expect(stored.length).toBeGreaterThan(0);
  for (const key of stored)
    expectClose(key, model.params.window(grad, key.slice(name.length + 7)).values(), s.tol.grad);
  const all = Math.sqrt(grad.values().reduce((a, g) => a + g * g, 0));
  expect(Math.abs(all / values(`${name}.grad_norm_all`)[0] - 1)).toBeLessThan(s.tol.grad);
}

const scmOptions = (o: Partial<ScmOptions>): ScmOptions => ({
  tangent: "jvp", fdSize: Number(G.metadata.fd_size), passes: "one", ramp: 1, rampScope: "x_t",
  scale: Number(G.metadata.loss_scale), precise: null, onNonfinite: "raise", ...o,
});
const scmDraws = (s: Setup): ScmDraws => ({ tTrig: values("time"), eps: s.up("eps") });

onEachSetup("fields of teacher and student", (test) => {
  test("conditional, unconditional and guided", (s) => {
    const [xt, t] = [s.up("xt"), values("time")];
    const { condition } = s.batch;
    const check = (name: string, got: Tensor): void => expectClose(name, got.values(), s.tol.value);
    check("F_student", evaluate(s.student.field, xt, t, condition));
    check("x0_student", evaluate(s.student.x0, xt, t, condition));
    check("F_teacher_cond", evaluate(s.plainTeacher.field, xt, t, condition));
    check("F_teacher_uncond", evaluate(s.plainTeacher.field, xt, t, s.up("uncondition")));
    check("F_teacher", evaluate(s.teacher.field, xt, t, condition));
    check("x0_teacher_cond", evaluate(s.plainTeacher.x0, xt, t, condition));
  });
});

onEachSetup("sCM", (test) => {
  for (const ramp of settings("scm_r", "t_F")) {
    for (const passes of ["one", "two"] as const) {
      test(`by JVP, r = ${ramp}, ${passes} pass(es)`, (s) => {
        const name = `scm_r${ramp}`;
        const options = scmOptions({ ramp: Number(ramp), passes });
        const parts = scmParts(
          new Tape(s.device, { record: true }), s.student, s.teacher, s.batch, scmDraws(s), options,
        );
        expectClose("xt", parts.xt.values(), s.tol.value);
        expectClose(`${name}.t_F`, parts.D.values(), s.tol.tangent);
        expectClose(`${name}.g_raw`, parts.gRaw.values(), s.tol.tangent);
        expectClose(`${name}.g`, parts.g.values(), s.tol.tangent);
        const tape = new Tape(s.device, { record: true });
        const loss = scmLoss(tape, s.student, s.teacher, s.batch, scmDraws(s), options);
        expectLoss(s, name, s.models.student, tape, loss);
      });
    }
  }

  for (const [name, tangent] of [["scm_fd1", "semi_continuous"], ["scm_fd2", "finite_difference"]] as const) {
    test(`by differences, ${tangent}`, (s) => {
      const tape = new Tape(s.device, { record: true });
      const options = scmOptions({ tangent });
      const parts = scmParts(tape, s.student, s.teacher, s.batch, scmDraws(s), options);
      expectClose(`${name}.t_F`, parts.D.values(), s.tol.fd);
      expectClose(`${name}.g_raw`, parts.gRaw.values(), s.tol.fd);
      const loss = scmLoss(tape, s.student, s.teacher, s.batch, scmDraws(s), options);
      expectClose(`${name}.loss_per_sample`, loss.loss.x.values(), s.tol.loss);
    });
  }

  test("the ramp on the whole second term differs from the public code only by the tangent", (s) => {
    const run = (rampScope: "x_t" | "second_term") => {
      const tape = new Tape(s.device, { record: true });
      return scmParts(tape, s.student, s.teacher, s.batch, scmDraws(s), scmOptions({ ramp: 0.3, rampScope }));
    };
    const [a, b] = [run("x_t"), run("second_term")];
    const D = a.D.values();
    const want = a.gRaw.values().map((v, i) => v + 0.7 * D[i]);
    expect(relativeError(b.gRaw.values(), want)).toBeLessThan(1e-5);
  });
});

onEachSetup("dCM", (test) => {
  for (const k of settings("dcm_k", "xk")) {
    test(`over ${k} teacher step(s)`, (s) => {
      const name = `dcm_k${k}`;
      const tape = new Tape(s.device, { record: true });
      const { total_steps: totalSteps, shift } = JSON.parse(G.metadata.dcm);
      const scale = Number(G.metadata.loss_scale);
      const options = { totalSteps, skipSteps: Number(k), shift, scale, onNonfinite: "raise" as const };
      const draws = { u: values(`${name}.u_raw`), eps: s.up("eps") };
      const result = dcmLoss(tape, s.student, s.teacher, s.batch, draws, options);
      expectClose(`${name}.xk`, result.xk.values(), s.tol.value);
      expectClose(`${name}.x0_target`, result.target.values(), s.tol.value);
      expectLoss(s, name, s.models.student, tape, result);
    });
  }
});

function dmdDraws(s: Setup, name: string, n: number): DmdDraws {
  const B = s.batch.x0.shape[0];
  const drawn = n > 1 ? values(`${name}.sim_time_draws`) : new Float64Array(0);
  const times = Array.from({ length: n - 1 }, (_, k) =>
    Float64Array.from({ length: B }, (_, b) => drawn[b * (n - 1) + k]),
  );
  const renoise = times.map((_, k) => s.up(`${name}.sim_noise.${k + 1}`));
  const simulation = { noise: s.up(`${name}.sim_noise.0`), times, renoise };
  return { simulation, tTrig: values(`${name}.D_time`), eps: s.up(`${name}.eps`) };
}

onEachSetup("DMD", (test) => {
  for (const n of settings("dmd_n", "G_x0")) {
    const name = `dmd_n${n}`;
    test(`the student's loss after ${n} simulation step(s)`, (s) => {
      const tape = new Tape(s.device, { record: true });
      const draws = dmdDraws(s, name, Number(n));
      const options = { scale: 1, onNonfinite: "raise" } as const;
      const result = dmdLoss(tape, s, s.batch.condition, draws, options);
      const { G: x0, xt, critic, teacher, q, spread } = result.parts;
      expectClose(`${name}.G_x0`, x0.values(), s.tol.value);
      expectClose(`${name}.D_xt`, xt.values(), s.tol.value);
      expectClose(`${name}.x0_fake`, critic.values(), s.tol.value);
      expectClose(`${name}.x0_teacher`, teacher.values(), s.tol.value);
      expectClose(`${name}.grad`, q.values(), s.tol.tangent);
      expectClose(`${name}.weight`, spread, s.tol.value);
      expectLoss(s, name, s.models.student, tape, result);
    });

    test(`the critic's loss after ${n} simulation step(s)`, (s) => {
      const tape = new Tape(s.device, { record: true });
      const draws = dmdDraws(s, name, Number(n));
      const result = criticLoss(tape, s.critic, s.student, s.batch.condition, draws, { onNonfinite: "raise" });
      expectClose(`critic_n${n}.x0_fake`, result.x0.values(), s.tol.value);
      expectLoss(s, `critic_n${n}`, s.models.critic, tape, result);
      expect((s.models.student.params.grad as Tensor).values().every((g) => g === 0)).toBe(true);
    });
  }

  test("backward simulation on fixed times", (s) => {
    const B = s.batch.x0.shape[0];
    const times = [1.5, 1.4].map((t) => new Float64Array(B).fill(t));
    const renoise = [1, 2].map((k) => s.up(`dmd_n3.sim_noise.${k}`));
    const draws = { noise: s.up("dmd_n3.sim_noise.0"), times, renoise };
    const out = simulate(new Tape(s.device, { record: false }), s.student, s.batch.condition, draws);
    expectClose("sim_fixed.G_x0", out.x.values(), s.tol.value);
  });
});

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
