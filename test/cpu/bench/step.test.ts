import { expect, test } from "bun:test";
import { join } from "node:path";
import { benchStep } from "../../../core/bench/step.ts";
import { loadRecipe } from "../../../core/recipe/load.ts";
import { Device } from "../../../core/tensor.ts";
import { counted } from "../../../ffi/counting.ts";
import { setUp } from "../../harness/measured_run.ts";

const ROOT = join(import.meta.dir, "../../..");

test("the timed iterations of a role have each number of simulation steps equally often", () => {
  const loaded = loadRecipe(join(ROOT, "recipes/digits/rcm.yaml"), ["train.batch=1"]);
  const { turns } = benchStep(loaded, { device: "cpu", threads: 1, repeats: 4 });

  const { backend, take } = counted(Device.open({ device: "cpu", threads: 1 }).backend);
  using device = new Device(backend);
  const { trainer, batch } = setUp(device, loaded.recipe);
  for (const role of ["student", "critic"]) {
    const trains = (step: number): boolean => trainer.method.turn(loaded.recipe, step) === role;
    const kinds = trainer.method.kinds(loaded.recipe).filter(({ step, share }) => trains(step) && share > 0);
    expect(kinds.length).toBe(loaded.recipe.objective.dmd?.simulation_steps ?? 0);
    take();
    for (const { step, updates } of kinds) trainer.iterate([batch], { step, updates });
    expect(turns[role].gflop).toBeCloseTo(take() / 1e9 / kinds.length, 9);
  }
}, 60_000);
