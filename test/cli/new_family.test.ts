import { afterAll, beforeAll, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "../..");
let dir = "";
beforeAll(() => void (dir = mkdtempSync(join(tmpdir(), "rcm-family-"))));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

function rcm(...args: string[]): string {
  const [bun, family, main] = ["cli/bun.sh", "test/harness/mixer_family.ts", "cli/main.ts"].map((f) => join(ROOT, f));
  const command = [bun, "--preload", family, main, ...args];
  const r = spawnSync("sh", command, { encoding: "utf8", cwd: dir, timeout: 300_000 });
  expect([args[0], r.status, r.stderr]).toEqual([args[0], 0, ""]);
  return r.stdout;
}

test("a family of one file trains, samples, exports and reloads through the ordinary commands", () => {
  const writeRecipe = (name: string, ...lines: string[]): void => {
    const head = [`extends: ${ROOT}/recipes/digits/${name}.yaml`, `name: mixer-${name}`];
    const train = "train: { steps: 6, batch: 4, sample_every: 0, checkpoint_every: 6 }";
    const recipe = [...head, "model: { preset: mixer-digits }", train, ...lines];
    writeFileSync(join(dir, `${name}.yaml`), `${recipe.join("\n")}\n`);
  };
  writeRecipe("teacher");
  writeRecipe("rcm", "teacher: { weights: teacher.safetensors }");
  rcm("data", "digits", "--out", "digits", "--limit", "32", "--test-limit", "1", "-q");
  const common = ["--set", `data.path=${join(dir, "digits/train")}`, "--device", "cpu", "--threads", "2", "-q"];
  rcm("distill", "teacher.yaml", "--out", "teacher", ...common);
  rcm("export", "teacher", "--out", "teacher.safetensors", "--dtype", "f32", "-q");
  rcm("distill", "rcm.yaml", "--out", "rcm", ...common, "--set", "objective.consistency.tangent_warmup=2");
  rcm("export", "rcm", "--out", "rcm.safetensors", "--dtype", "f32", "-q");
  const report = JSON.parse(rcm("weights", "inspect", "rcm.safetensors", "--json"));
  expect([report.preset, report.layout]).toEqual(["mixer-digits", "original"]);
  expect(report.fit).toEqual({ missing: [], unexpected: [], misshaped: [] });
  const drawn = ["run", "file"].map((name) => {
    const weights = name === "run" ? "rcm" : "rcm.safetensors";
    const options = ["--prompt", "a handwritten three", "--steps", "2", "--out", name, "--device", "cpu", "-q"];
    rcm("sample", "rcm/recipe.yaml", "--weights", weights, ...options);
    return Buffer.from(Bun.spawnSync(["cat", join(dir, name, "grid.png")]).stdout).toString("hex");
  });
  expect(drawn[0].length).toBeGreaterThan(100);
  expect(drawn[1]).toBe(drawn[0]);
  expect(readdirSync(join(dir, "run"))).toContain("000000.png");
}, 300_000);
