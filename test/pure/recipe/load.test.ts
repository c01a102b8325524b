import { describe, expect, test } from "bun:test";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { RcmError } from "../../../core/error.ts";
import { loadRecipe } from "../../../core/recipe/load.ts";
import { editDistance, nearest } from "../../../core/recipe/suggest.ts";

const dir = mkdtempSync(join(tmpdir(), "rcm-recipe-"));
let count = 0;
const file = (text: string, name = `r${count++}.yaml`): string => {
  writeFileSync(join(dir, name), text);
  return join(dir, name);
};
const GOOD = `name: good
model: {preset: wan-digits, init: random}
data: {path: here, shape: [1, 1, 28, 28]}
objective: {consistency: {kind: flow}}
optimizer: {lr: 0.001}
train: {steps: 3, batch: 2}
`;
const message = (path: string, sets: string[] = []): string => {
  try {
    loadRecipe(path, sets);
  } catch (error) {
    if (!(error instanceof RcmError)) throw error;
    return error.message.replaceAll(dir, "D");
  }
  return "no error";
};

describe("recipes", () => {
  test("defaults are filled, and the resolved text loads to the same recipe", () => {
    const r = loadRecipe(file(GOOD));
    expect(r.recipe.sample.mid_times).toEqual([1.5, 1.4, 1.0]);
    expect(r.recipe.data.path).toBe(join(dir, "here"));
    const again = loadRecipe(file(r.resolved));
    expect(again.hash).toBe(r.hash);
    expect(again.recipe).toEqual(r.recipe);
    expect(loadRecipe(file(GOOD), ["train.steps=4"]).hash).not.toBe(r.hash);
  });

  const bad: [string, string, string[]][] = [
    [
      "unknown key", GOOD.replace("lr: 0.001", "lr: 0.001, epss: 1"),
      [":5:24 optimizer.epss: unknown key", 'did you mean "eps"'],
    ],
    ["wrong type", GOOD.replace("0.001", "fast"), [':5:13 optimizer.lr: found "fast", allowed number']],
    ["out of range", GOOD.replace("batch: 2", "batch: 0"), [":6:19 train.batch: found 0, allowed at least 1"]],
    ["missing", GOOD.replace(", batch: 2", ""), [":6:1 train.batch: missing"]],
    [
      "bad kind",
      GOOD.replace("kind: flow", "kind: flaw"),
      [':4:27 objective.consistency.kind: found "flaw"', 'did you mean "flow"'],
    ],
    ["picklist", GOOD.replace("wan-digits", "wan-digit"), [":2:9 model.preset", 'did you mean "wan-digits"']],
    ["duplicate key", `${GOOD}name: twice\n`, [":7:1: ", "unique"]],
    ["syntax", GOOD.replace("[1, 1, 28, 28]", "[1, 1"), [":"]],
    [
      "heads", GOOD.replace("preset: wan-digits", "preset: wan-digits, heads: 5"),
      [":2:29 model.heads: found 5 heads for width 128"],
    ],
    [
      "no objective", GOOD.replace("{consistency: {kind: flow}}", "{consistency: null}"),
      [":4:1 objective: found neither"],
    ],
    ["teacher wanted", GOOD.replace("kind: flow", "kind: scm"), ["teacher: found nothing"]],
    [
      "latent shape", GOOD.replace("28, 28", "28, 27"),
      [":3:20 data.shape: found 27, allowed multiples of the patch 4"],
    ],
    ["list at the top", "- 1\n", [":1:1: found object"]],
  ];
  for (const [name, text, wants] of bad) {
    test(`error: ${name}`, () => {
      const m = message(file(text, `bad-${name.replace(/\W/g, "-")}.yaml`));
      for (const want of wants) expect(m).toContain(want);
      expect(m).toContain("D/bad-");
    });
  }

  test("all problems are listed, a line each", () => {
    const m = message(file(GOOD.replace("0.001", "fast").replace("steps: 3", "steps: -1")));
    expect(m.split("\n").length).toBe(2);
  });

  test("extends merges key by key, positions name the file, kinds replace, circles are found", () => {
    file(GOOD, "parent.yaml");
    const child = loadRecipe(
      file(
        "name: child\nextends: ./parent.yaml\ntrain: {steps: 9}\n" +
          "objective: {consistency: {kind: meanflow, velocity: data}}\n",
      ),
    );
    expect([child.recipe.train.steps, child.recipe.train.batch, child.recipe.objective.consistency?.kind]).toEqual([
      9, 2, "meanflow",
    ]);
    file(GOOD.replace("batch: 2", "batch: 0"), "broken.yaml");
    expect(message(file("extends: ./broken.yaml\nname: c\n"))).toContain("D/broken.yaml:6:19 train.batch");
    file("extends: ./b.yaml\n", "a.yaml");
    file("extends: ./a.yaml\n", "b.yaml");
    expect(message(join(dir, "a.yaml"))).toContain("circle");
    expect(message(join(dir, "gone.yaml"))).toContain("cannot read");
  });

  test("--set parses YAML, keeps order, and suggests keys", () => {
    const path = file(GOOD);
    expect(loadRecipe(path, ["train.steps=5", "train.steps=6", "sample.steps=[1, 2]"]).recipe).toMatchObject({
      train: { steps: 6 },
      sample: { steps: [1, 2] },
    });
    expect(message(path, ["train.stops=5"])).toContain('did you mean "steps"');
    expect(message(path, ["train.steps=x"])).toContain("--set train.steps train.steps: found \"x\"");
    expect(message(path, ["train.steps"])).toContain("key=value");
  });

  test("environment variables", () => {
    const path = file(GOOD.replace("path: here", "path: '${RCM_TEST_DIR:-fallback}/x'"));
    expect(loadRecipe(path).recipe.data.path).toBe(join(dir, "fallback/x"));
    process.env.RCM_TEST_DIR = "/elsewhere";
    expect(loadRecipe(path).recipe.data.path).toBe("/elsewhere/x");
    delete process.env.RCM_TEST_DIR;
    expect(message(file(GOOD.replace("path: here", "path: '${RCM_TEST_UNSET}/x'")))).toContain(
      "RCM_TEST_UNSET is not set",
    );
  });

  test("suggestions", () => {
    expect(editDistance("abcd", "abdc")).toBe(1);
    expect(nearest("stepz", ["steps", "batch"])).toBe("steps");
    expect(nearest("xyz", ["steps", "batch"])).toBeNull();
  });
});
