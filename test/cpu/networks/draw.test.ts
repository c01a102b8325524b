import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { RcmError } from "../../../core/error.ts";
import { loadRecipe } from "../../../core/recipe/load.ts";
import { latentShape } from "../../../core/recipe/schema.ts";
import { createNetwork } from "../../../core/networks/build.ts";
import { draw, drawNow, stopPoint, type DrawJob, type DrawNet } from "../../../core/networks/draw.ts";
import { drawNet } from "../../../core/networks/net.ts";
import type { Network } from "../../../core/networks/network.ts";
import {
  gridPlans, planFields, recipePlan, samplePlan, stepsOf, studentPlan, teacherPlan, type SamplePlan,
} from "../../../core/networks/plan.ts";
import { SAMPLERS, type SamplerName } from "../../../core/samplers/list.ts";
import { noiseKeys, sampleNoise, type NoiseKey } from "../../../core/samplers/noise.ts";
import { streamOf } from "../../../core/rng.ts";
import { constant, type Var } from "../../../core/tape.ts";
import type { Tensor } from "../../../core/tensor.ts";
import { cpu } from "../../harness/device.ts";
import { randomize, TINY_WAN, tinyWan } from "../../harness/tiny_wan.ts";

const ROOT = join(import.meta.dir, "../../..");
const SMALL = ["model.layers=1", "model.dim=32", "model.heads=2", "model.ffn_dim=48"];
const digits = (file: string, ...sets: string[]) =>
  loadRecipe(join(ROOT, `recipes/digits/${file}.yaml`), [...SMALL, ...sets]).recipe;

/** A plan of every sampler of the list: of more than 4 steps, in both modes where there are two. */
function plansOf(name: SamplerName): SamplePlan[] {
  if (name === "euler" || name === "unipc") {
    return [3, 1].map((guidance) => teacherPlan({ steps: 3, sampler: name, guidance, shift: 5, sigmaMax: 80 }));
  }
  const modes = name === "meanflow" ? (["ode"] as const) : (["sde", "ode"] as const);
  return modes.map((mode) => studentPlan({ steps: 5, sigmaMax: 80, midTimes: null, form: name, mode }));
}

/** Digits and a tiny video network with their latents, of one or two times. */
type Place = { net: DrawNet; job: Omit<DrawJob, "plan">; free: () => void };
const places: Record<string, (secondTime: boolean) => Place> = {
  digits(secondTime) {
    const recipe = digits("rcm");
    const network = createNetwork(cpu(), recipe, { trainable: false, secondTime });
    randomize(network.params, 3);
    return placed(network, latentShape(recipe));
  },
  video(secondTime) {
    return placed(tinyWan(cpu(), { ...TINY_WAN, secondTime }, "f32"), [2, 16, 4, 6]);
  },
};

function placed(network: Network, shape: number[]) {
  const { text } = network.spec;
  const noise = [{ seed: 5, index: 3 }, { seed: 5, index: 8 }];
  const [condition, negative] = [2, 1].map((n, i) => cpu().randn([n, text.length, text.width], "f32", 9, i + 1));
  const free = (): void => network[Symbol.dispose]();
  return { net: drawNet(network), job: { shape, noise, condition, negative }, free };
}

/** A network that does nothing with x but takes memory; `each` runs at every evaluation. */
function idle(each: (call: number, x: Tensor) => Tensor | void = () => {}): DrawNet {
  let calls = 0;
  const answer = (x: Var): Var => {
    cpu().randn([7], "f32", 1, 1);
    return constant(each(++calls, x.x) ?? x.x);
  };
  return { velocity: (_tape, x) => answer(x), meanVelocity: (_tape, x) => answer(x) };
}
const job = (plan: SamplePlan): DrawJob => ({
  plan,
  shape: [1, 1, 2, 3],
  noise: noiseKeys(1, 0, 2),
  condition: cpu().zeros([2, 1, 1], "f32"),
  negative: cpu().zeros([1, 1, 1], "f32"),
});

describe("every sampler of the list, in every place", () => {
  for (const [place, open] of Object.entries(places)) {
    for (const name of Object.keys(SAMPLERS) as SamplerName[]) {
      test(`${name} on ${place}: finite, the same in one go, a sample alone as in its batch`, async () => {
        using _scope = cpu().scope();
        const { net, job, free } = open(SAMPLERS[name].net === "meanflow");
        for (const plan of plansOf(name)) {
          const steps: number[] = [];
          const onStep = (step: number, seconds: number): void => {
            steps.push(step);
            expect(seconds).toBeGreaterThan(0);
          };
          const got = (await draw(net, { ...job, plan }, { onStep })).values();
          expect(steps).toEqual(Array.from({ length: stepsOf(plan) }, (_, k) => k + 1));
          expect(got.every(Number.isFinite)).toBe(true);
          expect(drawNow(net, { ...job, plan }).values()).toEqual(got);
          const [, ...text] = job.condition.shape;
          const condition = job.condition.window(job.condition.numel / 2, [1, ...text]);
          const second = { ...job, plan, noise: job.noise.slice(1), condition };
          const alone = drawNow(net, second).values();
          expect(Math.max(...alone.map((v, i) => Math.abs(v - got[alone.length + i])))).toBeLessThan(1e-4);
        }
        free();
      });
    }
  }

  test("modes, forms and seeds differ; a network of one time has no mean velocity", () => {
    using _scope = cpu().scope();
    const { net, job, free } = places.video(false);
    const of = (plan: SamplePlan): string => String(drawNow(net, { ...job, plan }).values());
    const all = (["euler", "unipc", "trig", "rf"] as const).flatMap((name) => plansOf(name).map(of));
    expect(new Set(all).size).toBe(all.length);
    const [plan] = plansOf("meanflow");
    expect(() => drawNow(net, { ...job, plan })).toThrow(expect.objectContaining({ code: "E_ARG" }));
    free();
  });

  test("MeanFlow over one step takes the mean velocity from the first time to 0", () => {
    using _scope = cpu().scope();
    const times: number[][] = [];
    const meanVelocity: DrawNet["meanVelocity"] = (_tape, x, t, r) => (times.push([t.t[0], r.t[1]]), x);
    const { velocity } = idle();
    const plan = studentPlan({ steps: 1, sigmaMax: 80, midTimes: null, form: "meanflow", mode: "ode" });
    const j = job(plan);
    const got = drawNow({ velocity, meanVelocity }, j).values();
    expect(times).toEqual([[expect.closeTo(80 / 81, 12), 0]]);
    sampleNoise(cpu(), j.shape, j.noise, 0).values().forEach((v, i) => expect(got[i]).toBeCloseTo(v / 81, 5));
  });
});

describe("memory", () => {
  const plans = (Object.keys(SAMPLERS) as SamplerName[]).flatMap(plansOf);

  test("after a network that throws, latents that are not finite and a stop it is as before", async () => {
    using outer = cpu().scope();
    const refuse = (): DrawNet =>
      idle((call) => {
        if (call === 3) throw new RcmError("E_STATE", "no more", { op: "test" });
      });
    const nan = (x: Tensor): Tensor => cpu().fromValues(new Float64Array(x.numel).fill(Number.NaN), x.shape, "f32");
    const broken = (): DrawNet => idle((_, x) => nan(x));
    for (const plan of plans) {
      const j = job(plan);
      const before = cpu().memory();
      const asBefore = (): void => {
        const now = cpu().memory();
        expect([now.current, now.blocks]).toEqual([before.current, before.blocks]);
        const own = cpu().zeros([1], "f32");
        expect(outer.owned.has(own.storage)).toBe(true); // this scope is the innermost one again
        own.free();
      };
      await expect(draw(refuse(), j)).rejects.toMatchObject({ code: "E_STATE" });
      asBefore();
      expect(() => drawNow(refuse(), j)).toThrow("no more");
      asBefore();
      const named = draw(broken(), j, { nameOf: (b) => `number ${b}` });
      await expect(named).rejects.toMatchObject({ code: "E_NONFINITE", message: expect.stringContaining("number 0") });
      asBefore();
      let asked = 0;
      const stop = stopPoint(() => ++asked > 2, "test", () => "enough");
      await expect(draw(idle(), j, { stopPoint: stop })).rejects.toMatchObject({ code: "E_INTERRUPTED" });
      expect(asked).toBe(3);
      asBefore();
    }
  });

  test("a run holds what the sampler needs and no more, however many steps it takes", () => {
    using _scope = cpu().scope();
    const most = (steps: number, sampler: "euler" | "unipc"): number => {
      const held: number[] = [];
      const net = idle(() => void held.push(cpu().memory().blocks));
      drawNow(net, job(teacherPlan({ steps, sampler, guidance: 1, shift: 5, sigmaMax: 80 }))).free();
      return Math.max(...held) - held[0];
    };
    for (const sampler of ["euler", "unipc"] as const) {
      expect([sampler, most(40, sampler)]).toEqual([sampler, most(8, sampler)]);
    }
  });
});

describe("plans", () => {
  test("of recipes: form and mode, MeanFlow, step counts of grids, a flow recipe's teacher", () => {
    const plain = gridPlans(digits("rcm")).map((p) => [p.sampler, p.mode, stepsOf(p)]);
    expect(plain).toEqual([["rf", "sde", 1], ["rf", "sde", 2], ["rf", "sde", 4]]);
    const ode = recipePlan(digits("rcm", "sample.mode=ode", "sample.form=trig"), { role: "student", steps: 3 });
    expect(ode).toMatchObject({ sampler: "trig", mode: "ode", guidance: 1 });
    expect(gridPlans(digits("meanflow")).map((p) => p.sampler)).toEqual(["meanflow", "meanflow", "meanflow"]);
    const flow = gridPlans(digits("teacher")).map((p) => [p.role, p.sampler, stepsOf(p)]);
    expect(flow).toEqual([["teacher", "euler", 50]]);
    const long = digits("rcm", "sample.mid_times=null", "sample.steps=[1,8]");
    expect(gridPlans(long).map(stepsOf)).toEqual([1, 8]);
    expect(() => digits("rcm", "sample.steps=[1,8]")).toThrow("allowed null or at least 7");
    expect(() => digits("rcm", "sample.sigma_max=1")).toThrow("atan(sigma_max)");
    expect(() => digits("rcm", "sample.mode=odd")).toThrow("sample.mode");
  });

  test("settings override the recipe, the recipe overrides the published values", () => {
    const plain = { recipe: null, secondTime: false };
    const teacher = planFields(samplePlan({ role: "teacher" }, plain));
    expect(teacher).toMatchObject({ role: "teacher", sampler: "unipc", guidance: 5 });
    expect(stepsOf(samplePlan({ role: "teacher" }, plain))).toBe(50);
    const times = [Number(Math.atan(80).toPrecision(12)), 1.5, 1.4, 1, 0];
    const student = planFields(samplePlan({ role: "student" }, plain));
    expect(student).toEqual({ role: "student", form: "rf", mode: "sde", times });
    const long = samplePlan({ role: "student", mode: "ode", steps: 6 }, { recipe: digits("rcm"), secondTime: false });
    expect(long).toEqual(studentPlan({ steps: 6, sigmaMax: 80, midTimes: null, form: "rf", mode: "ode" }));
    for (const wrong of [{ form: "rf" }, { mode: "sde" }] as const) {
      const plan = (): SamplePlan => samplePlan({ role: "student", ...wrong }, { recipe: null, secondTime: true });
      expect(plan).toThrow(expect.objectContaining({ code: "E_ARG" }));
    }
  });
});

test("noise: neighbours in one draw, numbers in any order and seeds of their own are the streams they were", () => {
  using _scope = cpu().scope();
  const values = (keys: NoiseKey[], k = 0): Float64Array => sampleNoise(cpu(), [2, 3], keys, k).values();
  const three = values(noiseKeys(4, 7, 3), 1);
  const turned = values([9, 7, 8].map((index) => ({ seed: 4, index })), 1);
  expect(turned).toEqual(Float64Array.of(...three.subarray(12), ...three.subarray(0, 12)));
  const own = values([{ seed: 6, index: 0 }, { seed: 7, index: 0 }]);
  [6, 7].forEach((seed, b) => {
    const want = cpu().randn([6], "f32", seed, streamOf({ use: "sample" })).values();
    expect(own.subarray(6 * b, 6 * b + 6)).toEqual(want);
  });
});
