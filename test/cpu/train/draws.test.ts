import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { countingBackend } from "../../../ffi/counting.ts";
import { dtypeBytes, numel, type HostTensor } from "../../../core/dtype.ts";
import { loadRecipe } from "../../../core/recipe/load.ts";
import type { Recipe } from "../../../core/recipe/schema.ts";
import { KEY_RANGE, setSampleKey, streamOf, type RandomUse } from "../../../core/rng.ts";
import { Device } from "../../../core/tensor.ts";
import { Draws } from "../../../core/train/draws.ts";
import { Trainer } from "../../../core/train/trainer.ts";
import { cpu } from "../../harness/device.ts";

const TINY = [
  "model.dim=8", "model.heads=1", "model.layers=1", "model.ffn_dim=8", "train.batch=1", "train.sample_every=0",
];

const recipe = (name: string, sets: string[]): Recipe => {
  return loadRecipe(join(import.meta.dir, `../../../recipes/digits/${name}.yaml`), [...TINY, ...sets]).recipe;
};

const zeros = (shape: number[]): HostTensor => ({
  dtype: "bf16", shape, data: new Uint8Array(numel(shape) * dtypeBytes("bf16")),
});

/**
 * Every stream that the iterations of a recipe draw from, on a device that computes nothing. Rows of a noise count one
 * each.
 */
function streamsOf(r: Recipe, steps: number[]): number[] {
  using device = new Device(countingBackend("cpu"));
  const text = device.persistent(() => device.zeros([1, 24, 32], "bf16"));
  const nothing = (): void => {};
  const trainer = new Trainer(
    device, r, { teacher: r.teacher && nothing, student: nothing }, { negative: text, empty: text },
  );
  const seen: number[] = [];
  const original = Draws.prototype.stream;
  Draws.prototype.stream = function (this: Draws, use: RandomUse, b: number, index?: number): number {
    const stream = original.call(this, use, b, index);
    seen.push(stream);
    return stream;
  };
  try {
    const batch = { latents: zeros([r.train.batch, 1, 1, 28, 28]), embeds: zeros([r.train.batch, 24, 32]) };
    for (const step of steps) {
      trainer.iterate(Array.from({ length: r.train.accumulate }, () => batch), { step, updates: step });
    }
  } finally {
    Draws.prototype.stream = original;
  }
  return seen;
}

describe("random keys", () => {
  test("every field of a key changes the stream, and none runs into the next", () => {
    const last = { step: KEY_RANGE.step - 1, sample: KEY_RANGE.sample - 1, index: KEY_RANGE.index - 1 };
    const bits = Array.from({ length: 8 }, (_, i) => [i & 1, (i >> 1) & 1, i >> 2]);
    const corners = bits.flatMap(([a, b, c]) =>
      (["init", "metric"] as const).map((use) =>
        streamOf({ use, step: a * last.step, sample: b * last.sample, index: c * last.index }),
      ),
    );
    expect(new Set(corners).size).toBe(16);
    expect(corners.every(Number.isSafeInteger)).toBe(true);
    for (const field of ["step", "sample", "index"] as const) {
      for (const value of [KEY_RANGE[field], -1, 0.5, Number.NaN]) {
        expect(() => streamOf({ use: "noise", [field]: value })).toThrow(`the ${field} of a random key`);
      }
    }
  });

  test("samples of a set keep distinct streams past the range of one field", () => {
    const near = [0, 1, KEY_RANGE.sample - 1, KEY_RANGE.sample, KEY_RANGE.sample + 1];
    expect(new Set(near.flatMap((i) => [0, 1].map((draw) => streamOf(setSampleKey(i, draw))))).size).toBe(10);
  });

  for (const accumulate of [1, 64, 65, 256, 1024]) {
    test(`no two of a run's keys agree at accumulate ${accumulate}`, () => {
      const r = recipe("rcm", [
        `train.accumulate=${accumulate}`, "objective.consistency.tangent_warmup=0", "objective.dmd.student_every=2",
      ]);
      // Student with one simulated step, critic, student with two.
      const seen = streamsOf(r, [0, 1, 2]);
      expect(seen.length).toBeGreaterThan(15 * accumulate);
      // A noise asks for its last row's key as well, as a range check; with one sample a micro-batch that is the same
      // key again.
      const noises = seen.filter((s, i) => s !== seen[i - 1]);
      expect(new Set(noises).size).toBe(noises.length);
    }, 120_000);
  }

  test("a global batch draws the same bits as 1 x 4, 2 x 2 and 4 x 1", () => {
    const drawn = (split: number): string => {
      using _scope = cpu().scope();
      const parts = Array.from({ length: 4 / split }, (_, k) => {
        const draws = new Draws(3, 5, k * split);
        const like = cpu().empty([split, 1, 2, 3, 5], "f32");
        const noise = [0, 1, 7].map((index) => draws.noise("simulateNoise", like, index).toHost().data);
        return { noise, times: [...draws.each("time", split, (rng) => rng.normal() + rng.uniform())] };
      });
      const noise = [0, 1, 2].map((i) => Buffer.concat(parts.map((p) => p.noise[i])).toString("hex"));
      return JSON.stringify([noise, parts.flatMap((p) => p.times)]);
    };
    expect(drawn(2)).toBe(drawn(1));
    expect(drawn(4)).toBe(drawn(1));
  });
});

test("an inner scope that an error left open is freed with the outer one", () => {
  const device = cpu();
  const before = device.memory().current;
  {
    using _outer = device.scope();
    device.scope(); // never left
    device.empty([1024], "f32");
  }
  expect(device.memory().current).toBe(before);
  const kept = device.scope();
  const t = device.empty([4], "f32");
  kept[Symbol.dispose]();
  expect(t.storage.scope).toBe(null);
});
