import { describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { constant, leaf, Tape } from "../../core/tape.ts";
import { sqLoss } from "../../core/ops/sq_loss.ts";
import { finiteWeights } from "../../core/losses/loss.ts";

import { cpu } from "../harness/device.ts";

const ROOT = join(import.meta.dir, "../..");

/** The golden DiT, attention and op checks in a child process with another library variant. */
function golden(env: Record<string, string>): { status: number | null; text: string } {
  const r = spawnSync(process.execPath, ["test", "test/golden/wan_dit.test.ts", "test/golden/attention.test.ts", "test/cpu/ops.test.ts"], { cwd: ROOT, encoding: "utf8", env: { ...process.env, ...env }, timeout: 500_000 });
  return { status: r.status, text: r.stderr };
}

describe("library variants", () => {
  const best = cpu().backend.info.best_isa;
  for (const isa of ["baseline", "avx2", "avx512"]) {
    const runs = isa === "baseline" || best === "avx512" || best === isa;
    if (!runs || !existsSync(join(ROOT, "build/lib", isa === "baseline" ? "librcm_cpu.so" : `librcm_cpu_${isa}.so`))) {
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

describe("values that are not finite", () => {
  test("raise names sample and tensor; skip drops and counts; zero drops silently; the dropped sample has no gradient", () => {
    using _scope = cpu().scope();
    const x = cpu().fromValues([1, 2, Number.NaN, 4], [2, 2], "f32");
    const weight = Float64Array.of(1, 1);
    expect(() => finiteWeights("scm", weight, "raise", { g: x })).toThrow(/g of sample 1 holds 1 values/);
    expect(finiteWeights("scm", weight, "skip", { g: x })).toEqual({ weight: Float64Array.of(1, 0), skipped: 1 });
    expect(finiteWeights("scm", weight, "zero", { g: x })).toEqual({ weight: Float64Array.of(1, 0), skipped: 0 });
    const tape = new Tape(cpu(), { record: true });
    const v = leaf(x);
    const loss = sqLoss(tape, v, { target: null, delta: null, weight: Float64Array.of(1, 0) });
    tape.backward(loss, cpu().fromValues([1, 1], [2], "f64"));
    expect([...loss.x.values()]).toEqual([5, 0]);
    expect([...(v.node?.bar?.values() ?? [])]).toEqual([2, 4, 0, 0]);
    expect(constant(x).node).toBeNull();
  });

  test("checkFinite names the op that made the first NaN", () => {
    using _scope = cpu().scope();
    const tape = new Tape(cpu(), { record: false, checkFinite: true });
    expect(() => tape.run({ name: "breaks", forward: () => ({ y: cpu().fromValues([Number.NaN], [1], "f32"), saved: [] }), jvp: () => { throw new Error("unused"); }, vjp() {} }, [constant(cpu().zeros([1], "f32"))], null)).toThrow(/\[breaks\] y holds 1/);
  });
});
