import { describe, test } from "bun:test";
import { cpu } from "../../harness/device.ts";
import { OP_CASES } from "../../harness/op_cases.ts";
import { check16Bits, checkAdjoint, checkF32, checkRepeats, checkTangent } from "../../harness/op_checks.ts";

for (const [name, { op, cases }] of Object.entries(OP_CASES)) {
  describe(name, () => {
    for (const c of cases) {
      test(`${c.name}: tangent is the central difference, f64`, () => checkTangent(cpu(), op, c));
      test(`${c.name}: adjoint identity and gradients by difference, f64`, () => checkAdjoint(cpu(), op, c));
      test(`${c.name}: f32 follows f64 on the same inputs`, () => checkF32(cpu(), op, c));
      for (const dtype of ["bf16", "f16"] as const) {
        test(`${c.name}: ${dtype} errs at most twice as much as a plain run`, () => check16Bits(cpu(), op, c, dtype));
      }
      test(`${c.name}: the tangent pass has the same primal, and two runs are bitwise equal`, () =>
        checkRepeats(cpu(), op, c, ["f32", "f64", "bf16", "f16"]));
    }
  });
}
