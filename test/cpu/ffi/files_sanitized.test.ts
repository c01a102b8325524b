import { expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { join } from "node:path";

test("file windows under the address and undefined-behaviour sanitizers", () => {
  const r = spawnSync("sh", [join(import.meta.dir, "../../fuzz/native.sh"), "1500"], { encoding: "utf8" });
  if (r.status !== 0 && /cannot find.*(asan|ubsan)|c\+\+: not found/.test(r.stderr)) {
    console.log("skipped: sanitizers: the compiler has none");
    return;
  }
  expect(r.stderr).toBe("");
  expect(r.stdout).toBe("1500 windows, 0 failures\n");
  expect(r.status).toBe(0);
}, 300_000);
