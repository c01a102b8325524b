import { describe, expect } from "bun:test";
import { relativeError } from "../../harness/golden.ts";
import { cpu, gpuTier } from "../../harness/device.ts";
import { TINY_WAN, tinyWan } from "../../harness/tiny_wan.ts";
import { drawNow } from "../../../core/networks/draw.ts";
import { drawNet } from "../../../core/networks/net.ts";
import { studentPlan, teacherPlan, type SamplePlan } from "../../../core/networks/plan.ts";
import type { Device, Tensor } from "../../../core/tensor.ts";

const { device, test } = gpuTier();

describe("latents of the GPU and of the CPU", () => {
  const student = (form: "rf" | "trig", mode: "sde" | "ode"): SamplePlan =>
    studentPlan({ steps: 4, sigmaMax: 80, midTimes: null, form, mode });
  const teacher = (sampler: "euler" | "unipc"): SamplePlan =>
    teacherPlan({ steps: 6, sampler, guidance: 3, shift: 5, sigmaMax: 5000 });
  const plans: Record<string, SamplePlan> = {
    "student, rf, sde": student("rf", "sde"), "student, trig, sde": student("trig", "sde"),
    "student, rf, ode": student("rf", "ode"), "student, trig, ode": student("trig", "ode"),
    euler: teacher("euler"), unipc: teacher("unipc"),
  };
  const draw = (d: Device, plan: SamplePlan): Float64Array => {
    using _scope = d.scope();
    const model = tinyWan(d, TINY_WAN, "f32");
    // Values of the host, so that both start from the same bits.
    const values = (n: number, scale: number): Float64Array =>
      Float64Array.from({ length: n }, (_, i) => scale * Math.sin(7.3 * i + 1));
    for (const { name, shape } of model.params.specs)
      model.params
        .tensor(name)
        .set(d.fromValues(values(model.params.tensor(name).numel, shape.length > 1 ? 0.2 : 0.1), shape, "f32"));
    const text = (n: number): Tensor => d.fromValues(values(n * 5 * 24, 1), [n, 5, 24], "f32");
    const noise = [4, 9].map((index) => ({ seed: 3, index }));
    const job = { plan, shape: [2, 16, 4, 6], noise, condition: text(2), negative: text(1) };
    const out = drawNow(drawNet(model), job).values();
    model.params.flat.free();
    return out;
  };
  for (const [name, plan] of Object.entries(plans))
    test(name, () => expect(relativeError(draw(device(), plan), draw(cpu(), plan))).toBeLessThan(2e-4));
});
