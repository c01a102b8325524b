import { describe, expect, test } from "bun:test";
import { hostValues, type DType } from "../../core/dtype.ts";
import { WanModel } from "../../core/models/wan/model.ts";
import { ropeAngles } from "../../core/nn/rope.ts";
import { constant, leaf, Tape, type CheckpointMode } from "../../core/tape.ts";
import { cpu } from "../harness/device.ts";
import { golden, relativeError } from "../harness/golden.ts";
import { goldenConfig } from "../harness/golden_wan.ts";

const dit = golden("wan_dit.safetensors");
const grads = golden("wan_dit_grads.safetensors");

function build(dtype: DType, checkpoint: CheckpointMode): WanModel {
  const model = WanModel.create(cpu(), goldenConfig(dit.metadata.config), { dtype, residual: dtype, checkpoint, trainable: true });
  model.load(dit.under("params."), "golden");
  return model;
}

const inputs = (dtype: DType) => {
  const device = cpu();
  const up = (name: string) => device.fromHost(dit.get(name)).to(dtype);
  return { x: up("x"), xDot: up("x_dot"), context: up("context"), yBar: up("y_bar"), t: hostValues(dit.get("t")), tDot: hostValues(dit.get("t_dot")) };
};

describe("Wan DiT against the public reference", () => {
  // f32 rounding against the stated tolerance; f64 against the float32 rounding of the stored values.
  for (const [dtype, tolY, tolGrad] of [["f32", 2e-5, 5e-5], ["f64", 3e-7, 1e-6]] as const) {
    test(`value and tangents, ${dtype}`, () => {
      using _scope = cpu().scope();
      const model = build(dtype, "none");
      const { x, xDot, context, t, tDot } = inputs(dtype);
      const run = (dx: boolean, dt: boolean) =>
        model.forward(new Tape(cpu(), { record: false }), constant(x, dx ? xDot : null), { t, dot: dt ? tDot : null }, constant(context));
      const both = run(true, true);
      expect(relativeError(both.x.values(), hostValues(dit.get("y")))).toBeLessThan(tolY);
      expect(relativeError((both.dot as NonNullable<typeof both.dot>).values(), hostValues(dit.get("y_dot")))).toBeLessThan(tolY);
      for (const [name, v] of [["y_dot_x_only", run(true, false)], ["y_dot_t_only", run(false, true)]] as const) {
        expect(relativeError((v.dot as NonNullable<typeof v.dot>).values(), hostValues(dit.get(name)))).toBeLessThan(tolY);
      }
      expect(run(false, false).dot).toBeNull();
    });

    for (const mode of ["none", "block", "matmul"] as const) {
      test(`every gradient, ${dtype}, checkpoint ${mode}, tangent in the same pass`, () => {
        using _scope = cpu().scope();
        const model = build(dtype, mode);
        const { x, xDot, context, yBar, t, tDot } = inputs(dtype);
        const tape = new Tape(cpu(), { record: true });
        const [vx, vc] = [leaf(x, xDot), leaf(context)];
        const y = model.forward(tape, vx, { t, dot: tDot }, vc);
        expect(relativeError((y.dot as NonNullable<typeof y.dot>).values(), hostValues(dit.get("y_dot")))).toBeLessThan(tolY);
        tape.backward(y, yBar);
        const worst: [string, number][] = [];
        for (const name of grads.names.filter((n) => n.startsWith("grads."))) {
          const grad = model.params.window(model.params.grad as NonNullable<typeof model.params.grad>, name.slice(6));
          worst.push([name, relativeError(grad.values(), hostValues(grads.get(name)))]);
        }
        worst.push(["grads_x", relativeError((vx.node?.bar as typeof x).values(), hostValues(grads.get("grads_x")))]);
        worst.push(["grads_context", relativeError((vc.node?.bar as typeof x).values(), hostValues(grads.get("grads_context")))]);
        expect(worst.length).toBeGreaterThan(60);
        expect(worst.filter(([, e]) => !(e < tolGrad))).toEqual([]);
      });
    }
  }

  test("rope angles", () => {
    const c = goldenConfig(dit.metadata.config);
    const [, , T, Y, X] = dit.get("x").shape;
    const angles = ropeAngles(c.dim / c.heads, [T / c.patch[0], Y / c.patch[1], X / c.patch[2]]);
    expect(relativeError(angles, hostValues(dit.get("rope_freqs")))).toBeLessThan(1e-6);
  });
});
