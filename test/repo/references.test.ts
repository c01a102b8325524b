import { expect, test } from "bun:test";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "../..");

// test/cpu/ops/reference.test.ts runs them over OP_CASES.
test("every op has a reference in plain loops, exported under the op's name", async () => {
  for (const file of readdirSync(join(ROOT, "core/ops")).filter((f) => f.endsWith(".ts"))) {
    const path = join(ROOT, "test/harness/reference", file);
    expect([file, existsSync(path)]).toEqual([file, true]);
    const name = file.replace(".ts", "").replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());
    expect([file, Object.keys(await import(path))]).toEqual([file, expect.arrayContaining([name])]);
  }
});
