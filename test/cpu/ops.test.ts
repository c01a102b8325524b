import { describe, expect, test } from "bun:test";
import { caseInputs, dot, evaluateCase, TOLERANCE } from "../harness/check_op.ts";
import { cpu } from "../harness/device.ts";
import { relativeError } from "../harness/golden.ts";
import { OP_CASES } from "../harness/op_cases.ts";

const H = 1e-5;

for (const [name, { op, cases }] of Object.entries(OP_CASES)) {
  describe(name, () => {
    for (const c of cases) {
      const inputs = (seed: number, dtype: "f64" | "f32" | "bf16" | "f16") => {
        using _scope = cpu().scope();
        return caseInputs(cpu(), c, seed, dtype);
      };
      const tangentsOf = (all: (Float64Array | null)[]) => all.map((v, i) => (c.tangent.includes(i) ? v : null));
      const moved = (x: (Float64Array | null)[], d: (Float64Array | null)[], h: number) => x.map((v, i) => (v && d[i] ? v.map((e, k) => e + h * (d[i] as Float64Array)[k]) : v));

      test(`${c.name}: tangent is the central difference, f64`, () => {
        const x = inputs(1, "f64");
        const dots = tangentsOf(inputs(2, "f64"));
        const { yDot } = evaluateCase(cpu(), op, c, x, dots, null, "f64");
        const at = (h: number) => evaluateCase(cpu(), op, c, moved(x, dots, h), null, null, "f64").y;
        const [up, down] = [at(H), at(-H)];
        expect(relativeError(yDot as Float64Array, up.map((v, i) => (v - down[i]) / (2 * H)))).toBeLessThan(TOLERANCE.f64.difference);
      });

      test(`${c.name}: adjoint identity and gradients by difference, f64`, () => {
        const x = inputs(3, "f64");
        const dots = tangentsOf(inputs(4, "f64"));
        const plain = evaluateCase(cpu(), op, c, x, null, null, "f64");
        const yBar = plain.y.map((_, i) => Math.sin(1 + 3 * i));
        const { yDot, bars } = evaluateCase(cpu(), op, c, x, dots, yBar, "f64");
        const left = dot(yBar, yDot as Float64Array);
        const right = dots.reduce((s, d, i) => s + (d && bars[i] ? dot(bars[i] as Float64Array, d) : 0), 0);
        const size = Math.sqrt(dot(yBar, yBar) * dot(yDot as Float64Array, yDot as Float64Array));
        expect(Math.abs(left - right)).toBeLessThan(TOLERANCE.f64.adjoint * size + 1e-13);
        // Every input, parameters too, one at a time along a random direction.
        const directions = inputs(5, "f64");
        bars.forEach((bar, i) => {
          if (!bar) return;
          const only = directions.map((d, k) => (k === i ? d : null));
          const at = (h: number) => dot(yBar, evaluateCase(cpu(), op, c, moved(x, only, h), null, null, "f64").y);
          const want = (at(H) - at(-H)) / (2 * H);
          const got = dot(bar, directions[i] as Float64Array);
          const scale = Math.max(Math.abs(want), 1e-3 * Math.sqrt(dot(bar, bar)) * Math.sqrt(dot(directions[i] as Float64Array, directions[i] as Float64Array)), 1e-9);
          expect(Math.abs(got - want) / scale).toBeLessThan(20 * TOLERANCE.f64.difference);
        });
      });

      for (const dtype of ["f32", "bf16", "f16"] as const) {
        test(`${c.name}: ${dtype} follows f64 on the same inputs`, () => {
          const x = inputs(6, dtype);
          const dots = tangentsOf(inputs(7, dtype));
          const exact = evaluateCase(cpu(), op, c, x, dots, null, "f64");
          const yBar = exact.y.map((_, i) => (dtype === "f32" ? Math.fround(Math.sin(1 + 3 * i)) : i % 2 === 0 ? 1 : -0.5));
          const want = evaluateCase(cpu(), op, c, x, dots, yBar, "f64");
          const got = evaluateCase(cpu(), op, c, x, dots, yBar, dtype);
          expect(relativeError(got.y, want.y)).toBeLessThan(TOLERANCE[dtype].value);
          expect(relativeError(got.yDot as Float64Array, want.yDot as Float64Array)).toBeLessThan(TOLERANCE[dtype].tangent);
          got.bars.forEach((bar, i) => bar && expect(relativeError(bar, want.bars[i] as Float64Array)).toBeLessThan(TOLERANCE[dtype].gradient));
        });
      }

      test(`${c.name}: the tangent pass has the same primal, and two runs are bitwise equal`, () => {
        for (const dtype of ["f32", "f64", "bf16"] as const) {
          const x = inputs(8, dtype);
          const dots = tangentsOf(inputs(9, dtype));
          const plain = evaluateCase(cpu(), op, c, x, null, null, dtype);
          const yBar = plain.y.map((_, i) => 1 / (1 + i));
          const [a, b] = [evaluateCase(cpu(), op, c, x, dots, yBar, dtype), evaluateCase(cpu(), op, c, x, dots, yBar, dtype)];
          expect(a.y).toEqual(plain.y);
          expect(b).toEqual(a);
        }
      });
    }
  });
}
