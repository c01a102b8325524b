import { describe, expect, test } from "bun:test";
import { hostValues, type DType } from "../../core/dtype.ts";
import type { Time } from "../../core/diffusion/predict.ts";
import { meanflowLoss, type MeanFlowOptions, type MeanVelocityNet } from "../../core/losses/meanflow.ts";
import { activation } from "../../core/ops/activation.ts";
import { add } from "../../core/ops/add.ts";
import { linear } from "../../core/ops/linear.ts";
import { ParamSet } from "../../core/nn/params.ts";
import type { Tensor } from "../../core/tensor.ts";
import { constant, Tape, type Var } from "../../core/tape.ts";
import { cpu } from "../harness/device.ts";
import { golden, relativeError } from "../harness/golden.ts";

const G = golden("meanflow.safetensors");
const values = (name: string): Float64Array => hostValues(G.get(name));
const cases = JSON.parse(G.metadata.cases);
const config = JSON.parse(G.metadata.config);
const [B] = G.get("x").shape;
const N = values("x").length / B;
const C = config.cond as number;

/** The reference's small network l3(tanh(l2(tanh(l1 [x, t, r, cond])))), l1 split into its x columns and the rest. */
function network(role: "net" | "teacher", dtype: DType) {
  const stored = G.under(`params.${role}.`);
  const w1 = stored.get("l1.weight");
  if (!w1) throw new Error("no l1");
  const hidden = w1.shape[0];
  const rest = 2 + C;
  const specs = [
    { name: "l1x", shape: [hidden, N] },
    { name: "l1r", shape: [hidden, rest] },
    { name: "l1.bias", shape: [hidden] },
    ...["l2", "l3"].flatMap((l) => [
      { name: `${l}.weight`, shape: stored.get(`${l}.weight`)?.shape ?? [] },
      { name: `${l}.bias`, shape: stored.get(`${l}.bias`)?.shape ?? [] },
    ]),
  ].map((s) => ({ ...s, init: { kind: "zeros" as const } }));
  const params = ParamSet.create(cpu(), specs, dtype, true);
  const w = hostValues(w1);
  const part = (from: number, to: number): Float64Array =>
    Float64Array.from(
      { length: hidden * (to - from) },
      (_, i) => w[Math.floor(i / (to - from)) * (N + rest) + from + (i % (to - from))],
    );
  params.tensor("l1x").set(cpu().fromValues(part(0, N), [hidden, N], dtype));
  params.tensor("l1r").set(cpu().fromValues(part(N, N + rest), [hidden, rest], dtype));
  for (const name of ["l1.bias", "l2.weight", "l2.bias", "l3.weight", "l3.bias"])
    params.tensor(name).setHost(stored.get(name) as never);

  const net: MeanVelocityNet = (tape, x, t, r, condition) => {
    const cond = condition.values();
    const columns = (a: Time | null, b: Time | null, c: boolean, pick: "t" | "dot"): Tensor => {
      const rows = new Float64Array(B * rest);
      for (let i = 0; i < B; i++) {
        rows[i * rest] = a?.[pick]?.[i] ?? 0;
        rows[i * rest + 1] = b?.[pick]?.[i] ?? 0;
        for (let j = 0; c && j < C; j++) rows[i * rest + 2 + j] = cond[i * C + j];
      }
      return cpu().fromValues(rows, [B, rest], dtype);
    };
    const tr: Var = constant(columns(t, r, true, "t"), t.dot || r.dot ? columns(t, r, false, "dot") : null);
    const flat = tape.reshape(x, [B, N]);
    const h1 = activation(
      tape,
      add(
        tape,
        linear(tape, flat, { w: params.get("l1x"), b: null }),
        linear(tape, tr, { w: params.get("l1r"), b: params.get("l1.bias") }),
      ),
      "tanh",
    );
    const h2 = activation(tape, linear(tape, h1, { w: params.get("l2.weight"), b: params.get("l2.bias") }), "tanh");
    return tape.reshape(linear(tape, h2, { w: params.get("l3.weight"), b: params.get("l3.bias") }), x.x.shape);
  };
  return { net, params, hidden, rest };
}

function options(name: string): MeanFlowOptions {
  const { loss, model, iteration } = cases[name];
  const scale = model.guidance_scale as number | null;
  const velocity: MeanFlowOptions["velocity"] = loss.use_cd
    ? { kind: "teacher", scale: scale ?? 1 }
    : scale === null
      ? { kind: "data" }
      : {
          kind: "self",
          scale,
          mix: model.guidance_mixture_ratio ?? 0,
          start: model.guidance_t_start,
          end: model.guidance_t_end,
        };
  return {
    velocity,
    tangent: loss.use_jvp_finite_diff ? "finite_difference" : "jvp",
    fdSize: loss.jvp_finite_diff_eps,
    normPower: Number(loss.norm_method.replace("poly_", "")),
    normConst: loss.norm_const,
    ramp: loss.tangent_warmup_steps > 0 ? Math.min(1, iteration / loss.tangent_warmup_steps) : 1,
    spatialInvariance: loss.tangent_spatial_invariance,
    form: loss.loss_type === "opt_grad" ? "gradient" : "l2",
    minT: config.min_t,
    maxT: config.max_t,
    onNonfinite: "raise",
  };
}

for (const dtype of ["f32", "f64"] as const) {
  describe(`MeanFlow against the public reference, ${dtype}`, () => {
    for (const name of Object.keys(cases)) {
      test(`case ${name}: ${JSON.stringify(cases[name].loss)}`, () => {
        using _scope = cpu().scope();
        const fd = cases[name].loss.use_jvp_finite_diff;
        const tol = dtype === "f32" ? (fd ? 1e-3 : 1e-4) : fd ? 1e-5 : 1e-6;
        const student = network("net", dtype);
        const teacher = network("teacher", dtype);
        const up = (n: string): Tensor => cpu().fromHost(G.get(n)).to(dtype);
        const tape = new Tape(cpu(), { record: true });
        const nets = {
          student: student.net,
          teacher: (t: Tape, x: Var, time: Time, c: Tensor) => teacher.net(t, x, time, time, c),
          uncondition: () => up("neg_condition"),
        };
        const result = meanflowLoss(
          tape, nets, { x0: up("x"), condition: up("condition") }, { t: values("t"), r: values("r"), eps: up("z") },
          options(name),
        );
        const close = (got: ArrayLike<number>, want: string): void =>
          expect([want, relativeError(got, values(`${name}.${want}`))]).toEqual([
            want,
            expect.closeTo(0, -Math.log10(2 * tol)),
          ]);
        close(result.parts.xt.values(), "x_t");
        close(result.parts.v.values(), "dxt_dt");
        close(result.parts.u.values(), "u");
        close(result.parts.uJvp.values(), "u_jvp");
        close(result.parts.tangent.values(), "tangent");
        close(result.parts.weight, "weight");
        close(result.loss.x.values(), "loss");
        tape.backward(result.loss, cpu().fromValues(new Float64Array(B).fill(1 / B), [B], "f64"));
        const grad = student.params.grad as Tensor;
        const at = (n: string): Float64Array => student.params.window(grad, n).values();
        for (const n of ["l1.bias", "l2.weight", "l2.bias", "l3.weight", "l3.bias"]) close(at(n), `grads.${n}`);
        const [gx, gr] = [at("l1x"), at("l1r")];
        const width = N + student.rest;
        close(Float64Array.from({ length: student.hidden * width }, (_, i) => {
          const [row, column] = [Math.floor(i / width), i % width];
          return column < N ? gx[row * N + column] : gr[row * student.rest + column - N];
        }), "grads.l1.weight");
      });
    }
  });
}
