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
  const command = [
    join(ROOT, "cli/bun.sh"),
    "--preload",
    join(ROOT, "test/harness/mixer_family.ts"),
    join(ROOT, "cli/main.ts"),
    ...args,
  ];
  const r = spawnSync("sh", command, { encoding: "utf8", cwd: dir, timeout: 300_000 });
  expect([args[0], r.status, r.stderr]).toEqual([args[0], 0, ""]);
  return r.stdout;
}

test("a family of one file trains, samples, exports and reloads through the ordinary commands", () => {
  const small =
    "model: { preset: mixer-digits }\ntrain: { steps: 6, batch: 4, sample_every: 0, checkpoint_every: 6 }\n";
  writeFileSync(
    join(dir, "teacher.yaml"),
    `extends: ${ROOT}/recipes/digits/teacher.yaml\nname: mixer-teacher\n${small}`,
  );
  writeFileSync(
    join(dir, "rcm.yaml"),
    `extends: ${ROOT}/recipes/digits/rcm.yaml\nname: mixer-rcm\nteacher: { weights: teacher.safetensors }\n${small}`,
  );
  rcm("data", "digits", "--out", "digits", "--limit", "32", "--test-limit", "1", "-q");
  const common = ["--set", `data.path=${join(dir, "digits/train")}`, "--device", "cpu", "--threads", "2", "-q"];
  rcm("distill", "teacher.yaml", "--out", "teacher", ...common);
  rcm("export", "teacher", "--out", "teacher.safetensors", "--dtype", "f32", "-q");
  rcm("distill", "rcm.yaml", "--out", "rcm", ...common, "--set", "objective.consistency.tangent_warmup=2");
  rcm("export", "rcm", "--out", "rcm.safetensors", "--dtype", "f32", "-q");
  const report = JSON.parse(rcm("weights", "inspect", "rcm.safetensors", "--json"));
  expect([report.preset, report.layout, report.fit]).toEqual(["mixer-digits", "original", {
    missing: [],
    unexpected: [],
    misshaped: [],
  }]);
  const drawn = ["run", "file"].map((name) => {
    rcm(
      "sample",
      "rcm/recipe.yaml",
      "--weights",
      name === "run" ? "rcm" : "rcm.safetensors",
      "--prompt",
      "a handwritten three",
      "--steps",
      "2",
      "--out",
      name,
      "--device",
      "cpu",
      "-q",
    );
    return Buffer.from(Bun.spawnSync(["cat", join(dir, name, "grid.png")]).stdout).toString("hex");
  });
  expect(drawn[0].length).toBeGreaterThan(100);
  expect(drawn[1]).toBe(drawn[0]);
  expect(readdirSync(join(dir, "run"))).toContain("000000.png");
}, 300_000);
