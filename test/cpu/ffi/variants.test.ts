import { describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { cpu } from "../../harness/device.ts";

const ROOT = join(import.meta.dir, "../../..");

/** The golden DiT, attention and op checks in a child process with another library variant. */
function golden(env: Record<string, string>): { status: number | null; text: string } {
  const files = ["test/golden/wan_dit.test.ts", "test/golden/attention.test.ts", "test/cpu/ops/ops.test.ts"];
  const r = spawnSync(process.execPath, ["test", ...files], {
    cwd: ROOT, encoding: "utf8", env: { ...process.env, CUDA_VISIBLE_DEVICES: "", ...env }, timeout: 500_000,
  });
  return { status: r.status, text: r.stderr };
}

describe("library variants", () => {
  const best = cpu().backend.info.best_isa;
  for (const isa of ["baseline", "avx2", "avx512"]) {
    const runs = isa === "baseline" || best === "avx512" || best === isa;
    const library = isa === "baseline" ? "librcm_cpu.so" : `librcm_cpu_${isa}.so`;
    if (!runs || !existsSync(join(ROOT, "build/lib", library))) {
      test.skip(`${isa}: not on this processor`, () => {});
      continue;
    }
    test(`${isa} follows the golden vectors and passes every op check`, () => {
      const r = golden({ RCM_ISA: isa });
      expect([r.status, r.status === 0 ? "" : r.text]).toEqual([0, ""]);
    }, 600_000);
  }

  test("without a BLAS the built-in matmul passes the same checks", () => {
    const r = golden({ RCM_BLAS: "none" });
    expect([r.status, r.status === 0 ? "" : r.text]).toEqual([0, ""]);
  }, 600_000);
});
