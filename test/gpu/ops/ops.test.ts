import { describe } from "bun:test";
import { gpuTier } from "../../harness/device.ts";
import { OP_CASES } from "../../harness/op_cases.ts";
import { checkAdjoint, checkBesideCpu, checkRepeats, checkTangent } from "../../harness/op_checks.ts";
import { GPU_CASES } from "./cases.ts";

const { device, test } = gpuTier();
const LONG = 120_000;

for (const [name, { op, cases }] of Object.entries(OP_CASES)) {
  describe(`gpu: ${name}`, () => {
    for (const c of [...cases, ...(GPU_CASES[name]?.cases ?? [])]) {
      test(`${c.name}: tangent is the central difference, f64`, () => checkTangent(device(), op, c), LONG);
      test(`${c.name}: adjoint identity and gradients by difference, f64`, () => checkAdjoint(device(), op, c), LONG);
      for (const dtype of ["f64", "f32", "bf16", "f16"] as const)
        test(
          `${c.name}: ${dtype} is as close to f64 as the CPU library`, () => checkBesideCpu(device(), op, c, dtype),
          LONG,
        );
      test(
        `${c.name}: the tangent pass has the same primal, and two runs are bitwise equal`,
        () => checkRepeats(device(), op, c, ["f32", "f64", "bf16", "f16"]),
        LONG,
      );
    }
  });
}
