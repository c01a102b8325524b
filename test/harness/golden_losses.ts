import { describe, expect } from "bun:test";
import { type Network, velocityNet } from "../../core/networks/network.ts";
import { wanNetwork } from "./wan_net.ts";
import { hostValues, type DType } from "../../core/dtype.ts";
import { evaluate, guided, trigDenoiser } from "../../core/diffusion/predict.ts";
import { criticLoss } from "../../core/losses/critic.ts";
import { dcmLoss } from "../../core/losses/dcm.ts";
import { dmdLoss, type DmdDraws } from "../../core/losses/dmd.ts";
import type { LossResult } from "../../core/losses/loss.ts";
import { scmLoss, scmParts, type ScmOptions } from "../../core/losses/scm.ts";
import { simulate } from "../../core/losses/simulate.ts";
import type { Device, Tensor } from "../../core/tensor.ts";
import { Tape } from "../../core/tape.ts";
import type { TestFunction } from "./device.ts";
import { golden, relativeError } from "./golden.ts";
import { goldenConfig } from "./golden_wan.ts";

const G = golden("rcm_losses.safetensors");
const P = golden("rcm_losses_params.safetensors");
const values = (name: string): Float64Array => hostValues(G.get(name));

/** Tolerances of the set's metadata for f32; in f64 what float32 storage leaves. */
const TOL = {
  f32: { value: 1e-4, tangent: 2e-4, fd: 5e-3, loss: 2e-4, grad: 5e-4 },
  f64: { value: 3e-7, tangent: 1e-6, fd: 1e-5, loss: 1e-6, grad: 2e-6 },
} as const;

/** Every loss of the public reference, its parts and gradients, on a device. */
export function goldenLosses(device: () => Device, test: TestFunction): void {
  function setup(dtype: DType) {
    const net = (role: string, trainable: boolean): Network => {
      const model = wanNetwork(device(), goldenConfig(G.metadata.config), { dtype, residual: dtype, checkpoint: "none", trainable });
      model.load(P.under(`params.${role}.`), role);
      return model;
    };
    const up = (name: string): Tensor => device().fromHost(G.get(name)).to(dtype);
    const models = { student: net("student", true), teacher: net("teacher", false), critic: net("critic", true) };
    const unc = up("uncondition");
    const plainTeacher = trigDenoiser(velocityNet(models.teacher));
    return {
      models, up,
      student: trigDenoiser(velocityNet(models.student)),
      critic: trigDenoiser(velocityNet(models.critic)),
      plainTeacher,
      teacher: guided(plainTeacher, Number(G.metadata.guidance), () => unc),
      batch: { x0: up("x0"), condition: up("condition") },
    };
  }

  /** Backpropagates the sum of the per-sample losses and compares with the stored loss and gradients. */
  function expectLoss(prefix: string, dtype: "f32" | "f64", model: Network, tape: Tape, result: LossResult): void {
    expect(relativeError(result.loss_B.x.values(), values(`${prefix}.loss_per_sample`))).toBeLessThan(TOL[dtype].loss);
    expect(result.skipped).toBe(0);
    const B = result.loss_B.x.numel;
    model.params.zeroGrad();
    tape.backward(result.loss_B, device().fromValues(new Float64Array(B).fill(1), [B], "f64"));
    const stored = G.names.filter((n) => n.startsWith(`${prefix}.grads.`));
    expect(stored.length).toBeGreaterThan(10);
    const grad = model.params.grad as Tensor;
    const errors = stored.map((n) => [n, relativeError(model.params.window(grad, n.slice(prefix.length + 7)).values(), values(n))] as const);
    expect(errors.filter(([, e]) => !(e < TOL[dtype].grad))).toEqual([]);
    const all = Math.sqrt(grad.values().reduce((a, g) => a + g * g, 0));
    expect(Math.abs(all / values(`${prefix}.grad_norm_all`)[0] - 1)).toBeLessThan(TOL[dtype].grad);
  }

  const scmOptions = (o: Partial<ScmOptions>): ScmOptions => ({
    tangent: "jvp", fdSize: Number(G.metadata.fd_size), passes: "one", ramp: 1, rampScope: "x_t", scale: Number(G.metadata.loss_scale), precise: null, onNonfinite: "raise", ...o,
  });

  for (const dtype of ["f32", "f64"] as const) {
    const tol = TOL[dtype];
    describe(`losses against the public reference, ${dtype}`, () => {
      test("fields of teacher and student", () => {
        using _scope = device().scope();
        const s = setup(dtype);
        const [xt, t] = [s.up("xt"), values("time")];
        const check = (name: string, got: Tensor): void => expect([name, relativeError(got.values(), values(name)) < tol.value]).toEqual([name, true]);
        check("F_student", evaluate(s.student.field, xt, t, s.batch.condition));
        check("x0_student", evaluate(s.student.x0, xt, t, s.batch.condition));
        check("F_teacher_cond", evaluate(s.plainTeacher.field, xt, t, s.batch.condition));
        check("F_teacher_uncond", evaluate(s.plainTeacher.field, xt, t, s.up("uncondition")));
        check("F_teacher", evaluate(s.teacher.field, xt, t, s.batch.condition));
        check("x0_teacher_cond", evaluate(s.plainTeacher.x0, xt, t, s.batch.condition));
      });

      for (const r of [1, 0.3]) {
        for (const passes of ["one", "two"] as const) {
          test(`sCM by JVP, r = ${r}, ${passes} pass(es)`, () => {
            using _scope = device().scope();
            const s = setup(dtype);
            const name = `scm_r${r.toFixed(1)}`;
            const draws = { tTrig: values("time"), eps: s.up("eps") };
            const tape = new Tape(device(), { record: true });
            const parts = scmParts(tape, s.student, s.teacher, s.batch, draws, scmOptions({ ramp: r, passes }));
            expect(relativeError(parts.xt.values(), values("xt"))).toBeLessThan(tol.value);
            expect(relativeError(parts.D.values(), values(`${name}.t_F`))).toBeLessThan(tol.tangent);
            expect(relativeError(parts.gRaw.values(), values(`${name}.g_raw`))).toBeLessThan(tol.tangent);
            expect(relativeError(parts.g.values(), values(`${name}.g`))).toBeLessThan(tol.tangent);
            const again = new Tape(device(), { record: true });
            expectLoss(name, dtype, s.models.student, again, scmLoss(again, s.student, s.teacher, s.batch, draws, scmOptions({ ramp: r, passes })));
          });
        }
      }

      for (const [name, tangent] of [["scm_fd1", "semi_continuous"], ["scm_fd2", "finite_difference"]] as const) {
        test(`sCM, ${tangent}`, () => {
          using _scope = device().scope();
          const s = setup(dtype);
          const tape = new Tape(device(), { record: true });
          const draws = { tTrig: values("time"), eps: s.up("eps") };
          const parts = scmParts(tape, s.student, s.teacher, s.batch, draws, scmOptions({ tangent }));
          expect(relativeError(parts.D.values(), values(`${name}.t_F`))).toBeLessThan(tol.fd);
          expect(relativeError(parts.gRaw.values(), values(`${name}.g_raw`))).toBeLessThan(tol.fd);
          const loss = scmLoss(tape, s.student, s.teacher, s.batch, draws, scmOptions({ tangent }));
          expect(relativeError(loss.loss_B.x.values(), values(`${name}.loss_per_sample`))).toBeLessThan(tol.loss);
        });
      }

      test("the ramp on the whole second term differs from the public code only by the tangent", () => {
        using _scope = device().scope();
        const s = setup(dtype);
        const draws = { tTrig: values("time"), eps: s.up("eps") };
        const run = (rampScope: "x_t" | "second_term") => scmParts(new Tape(device(), { record: true }), s.student, s.teacher, s.batch, draws, scmOptions({ ramp: 0.3, rampScope }));
        const [a, b] = [run("x_t"), run("second_term")];
        const want = a.gRaw.values().map((v, i) => v + 0.7 * a.D.values()[i]);
        expect(relativeError(b.gRaw.values(), want)).toBeLessThan(1e-5);
      });

      for (const k of [1, 3]) {
        test(`dCM over ${k} teacher steps`, () => {
          using _scope = device().scope();
          const s = setup(dtype);
          const tape = new Tape(device(), { record: true });
          const o = JSON.parse(G.metadata.dcm);
          const options = { totalSteps: o.total_steps, skipSteps: k, shift: o.shift, scale: Number(G.metadata.loss_scale), onNonfinite: "raise" as const };
          const result = dcmLoss(tape, s.student, s.teacher, s.batch, { u: values(`dcm_k${k}.u_raw`), eps: s.up("eps") }, options);
          expect(relativeError(result.xk.values(), values(`dcm_k${k}.xk`))).toBeLessThan(tol.value);
          expect(relativeError(result.target.values(), values(`dcm_k${k}.x0_target`))).toBeLessThan(tol.value);
          expectLoss(`dcm_k${k}`, dtype, s.models.student, tape, result);
        });
      }

      const dmdDraws = (s: ReturnType<typeof setup>, n: number): DmdDraws => {
        const name = `dmd_n${n}`;
        const B = s.batch.x0.shape[0];
        const drawn = n > 1 ? values(`${name}.sim_time_draws`) : new Float64Array(0);
        const times = Array.from({ length: n - 1 }, (_, k) => Float64Array.from({ length: B }, (_, b) => drawn[b * (n - 1) + k]));
        return {
          simulation: { noise: s.up(`${name}.sim_noise.0`), times, renoise: times.map((_, k) => s.up(`${name}.sim_noise.${k + 1}`)) },
          tTrig: values(`${name}.D_time`), eps: s.up(`${name}.eps`),
        };
      };

      for (const n of [1, 3]) {
        test(`DMD after ${n} simulation step(s)`, () => {
          using _scope = device().scope();
          const s = setup(dtype);
          const tape = new Tape(device(), { record: true });
          const result = dmdLoss(tape, s.student, s.critic, s.teacher, s.batch.condition, dmdDraws(s, n), { scale: 1, onNonfinite: "raise" });
          const name = `dmd_n${n}`;
          for (const [got, want] of [[result.parts.G, "G_x0"], [result.parts.xt, "D_xt"], [result.parts.critic, "x0_fake"], [result.parts.teacher, "x0_teacher"]] as const) {
            expect([want, relativeError(got.values(), values(`${name}.${want}`)) < tol.value]).toEqual([want, true]);
          }
          expect(relativeError(result.parts.q.values(), values(`${name}.grad`))).toBeLessThan(tol.tangent);
          expect(relativeError(result.parts.spread, values(`${name}.weight`))).toBeLessThan(tol.value);
          expectLoss(name, dtype, s.models.student, tape, result);
        });

        test(`critic after ${n} simulation step(s)`, () => {
          using _scope = device().scope();
          const s = setup(dtype);
          const tape = new Tape(device(), { record: true });
          const result = criticLoss(tape, s.critic, s.student, s.batch.condition, dmdDraws(s, n), { onNonfinite: "raise" });
          expect(relativeError(result.x0.values(), values(`critic_n${n}.x0_fake`))).toBeLessThan(tol.value);
          expectLoss(`critic_n${n}`, dtype, s.models.critic, tape, result);
          expect((s.models.student.params.grad as Tensor).values().every((g) => g === 0)).toBe(true);
        });
      }

      test("backward simulation on fixed times", () => {
        using _scope = device().scope();
        const s = setup(dtype);
        const B = s.batch.x0.shape[0];
        const times = [1.5, 1.4].map((t) => new Float64Array(B).fill(t));
        const draws = { noise: s.up("dmd_n3.sim_noise.0"), times, renoise: [1, 2].map((k) => s.up(`dmd_n3.sim_noise.${k}`)) };
        const out = simulate(new Tape(device(), { record: false }), s.student, s.batch.condition, draws);
        expect(relativeError(out.x.values(), values("sim_fixed.G_x0"))).toBeLessThan(tol.value);
      });
    });
  }
}
