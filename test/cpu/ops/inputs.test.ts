import { describe, expect, test } from "bun:test";
import type { DType } from "../../../core/dtype.ts";
import { RcmError } from "../../../core/error.ts";
import { Tape, constant, type Var } from "../../../core/tape.ts";
import { Tensor } from "../../../core/tensor.ts";
import { storedDType, type OpCase } from "../../harness/check_op.ts";
import { cpu } from "../../harness/device.ts";
import { OP_CASES } from "../../harness/op_cases.ts";

/**
 * What an op reads in the dtype or with the sizes of another input would be read past its end: every input, tensor
 * parameter and tangent of another dtype or shape is refused, but for the mixes that the op's row names.
 */

const BASE: DType = "f32";
const bigger = (shape: readonly number[]): number[] => shape.map((n) => n + 1);
const blank = (shape: readonly number[], dtype: DType): Tensor => cpu().zeros(shape, dtype);

/** Code of the error that a run throws; "computed" when it gives a value. */
function outcome(run: () => unknown): string {
  try {
    run();
    return "computed";
  } catch (error) {
    return error instanceof RcmError ? error.code : String(error);
  }
}

/** Inputs of a case; `swap` gives another tensor for input i. */
function inputsOf(c: OpCase, swap: (i: number, t: Tensor) => Tensor = (_, t) => t): (Var | null)[] {
  return c.shapes.map((shape, i) => shape && constant(swap(i, blank(shape, storedDType(c, i, BASE)))));
}

/** Every way to give one tensor of the parameters (or of an object in them) another tensor. */
function swaps(params: unknown, make: (t: Tensor) => Tensor): [name: string, params: unknown][] {
  if (params === null || typeof params !== "object") return [];
  return Object.entries(params).flatMap(([key, value]): [string, unknown][] => {
    if (value instanceof Tensor) return [[key, { ...params, [key]: make(value) }]];
    if (value === null || typeof value !== "object" || Array.isArray(value)) return [];
    return swaps(value, make).map(([name, inner]) => [name, { ...params, [key]: inner }]);
  });
}

for (const [name, { op, cases, mixes = [], anyShape = [] }] of Object.entries(OP_CASES)) {
  const [c] = cases;
  const present = c.shapes.flatMap((shape, i) => (shape ? [i] : []));
  const run = (inputs: (Var | null)[], params: unknown = c.params(cpu(), BASE)): string => {
    using _scope = cpu().scope();
    return outcome(() => new Tape(cpu(), { record: false }).run(op, inputs, params));
  };

  describe(name, () => {
    using _scope = cpu().scope();
    test("the case itself computes", () => expect(run(inputsOf(c))).toBe("computed"));

    const groups = [...present.map((i) => [i]), ...mixes.filter((group) => group.length > 1)];
    const others = ["bf16", "f16", "f64", "i32"] as const;
    for (const group of groups) {
      const stated = mixes.some((m) => m.join() === group.join());
      for (const dtype of others) {
        const same = dtype === storedDType(c, group[0], BASE);
        // All inputs in f64 are no mix.
        if (same || (dtype === "f64" && stated && group.length === present.length)) continue;
        const want = stated && (dtype === "bf16" || dtype === "f16") ? "computed" : "E_DTYPE";
        test(`input ${group} of ${dtype}: ${want}`, () => {
          const swap = (i: number, t: Tensor): Tensor => (group.includes(i) ? blank(t.shape, dtype) : t);
          expect(run(inputsOf(c, swap))).toBe(want);
        });
      }
    }
    for (const i of present) {
      const want = anyShape.includes(i) ? "computed" : "E_SHAPE";
      test(`input ${i} of another shape: ${want}`, () => {
        expect(run(inputsOf(c, (k, t) => (k === i ? blank(bigger(t.shape), t.dtype) : t)))).toBe(want);
      });
    }

    test("tensors among the parameters", () => {
      const params = c.params(cpu(), BASE);
      for (const [key, other] of swaps(params, (t) => blank(t.shape, t.dtype === "bf16" ? "f32" : "bf16"))) {
        expect([key, run(inputsOf(c), other)]).toEqual([key, "E_DTYPE"]);
      }
      for (const [key, other] of swaps(params, (t) => blank(bigger(t.shape), t.dtype))) {
        expect([key, run(inputsOf(c), other)]).toEqual([key, "E_SHAPE"]);
      }
    });

    const withTangent = new Set(cases.flatMap((one) => one.tangent));
    const tangents = (make: (i: number, t: Tensor) => Tensor | null): (Var | null)[] =>
      inputsOf(c).map((v, i) => v && constant(v.x, make(i, v.x)));
    for (const i of present) {
      if (withTangent.has(i)) {
        test(`tangent of input ${i}: like its primal`, () => {
          const only = (make: (t: Tensor) => Tensor) => tangents((k, t) => (k === i ? make(t) : null));
          expect(run(only((t) => blank(t.shape, t.dtype)))).toBe("computed");
          for (const dtype of others) {
            const other = (t: Tensor): Tensor => blank(t.shape, dtype === t.dtype ? "f32" : dtype);
            expect([dtype, run(only(other))]).toEqual([dtype, "E_DTYPE"]);
          }
          expect(run(only((t) => blank(bigger(t.shape), t.dtype)))).toBe("E_SHAPE");
        });
      } else {
        test(`tangent of parameter ${i}: refused`, () => {
          const like = (t: Tensor): Tensor => blank(t.shape, t.dtype);
          expect(run(tangents((k, t) => (k === i ? like(t) : null)))).toBe("E_ARG");
          expect(run(tangents((k, t) => (k === i || withTangent.has(k) ? like(t) : null)))).toBe("E_ARG");
        });
      }
    }
  });
}
