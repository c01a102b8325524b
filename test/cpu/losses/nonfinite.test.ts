import { describe, expect, test } from "bun:test";
import { finiteWeights } from "../../../core/losses/loss.ts";
import { sqLoss } from "../../../core/ops/sq_loss.ts";
import { constant, leaf, Tape } from "../../../core/tape.ts";
import { cpu } from "../../harness/device.ts";

describe("values that are not finite", () => {
  test("raise names sample and tensor; skip drops and counts; zero drops silently, without gradient", () => {
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
    const unused = (): never => {
      throw new Error("unused");
    };
    const forward = () => ({ y: cpu().fromValues([Number.NaN], [1], "f32"), saved: [] });
    const x = constant(cpu().zeros([1], "f32"));
    expect(() => tape.run({ name: "breaks", forward, jvp: unused, vjp: unused }, [x], null)).toThrow(
      /\[breaks\] y holds 1/,
    );
  });
});
