import { expect, test } from "bun:test";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "../..");

test("folders of the test tiers are rooms of core, or ffi", () => {
  for (const tier of ["pure", "cpu", "gpu", "device"]) {
    const folders = readdirSync(join(ROOT, "test", tier), { withFileTypes: true }).filter((f) => f.isDirectory());
    const strangers = folders.filter((f) => f.name !== "ffi" && !existsSync(join(ROOT, "core", f.name)));
    expect([tier, strangers.map((f) => f.name)]).toEqual([tier, []]);
  }
});
