import { describe, expect, test } from "bun:test";
import { hostValues, type DType } from "../../core/dtype.ts";
import type { Network } from "../../core/networks/network.ts";
import { ropeAngles } from "../../core/nn/rope.ts";
import { CHECKPOINT_MODES, constant, leaf, Tape, type CheckpointMode } from "../../core/tape.ts";
import type { Tensor } from "../../core/tensor.ts";
import { onEachDevice } from "../harness/device.ts";
import { framesFirst, golden, relativeError } from "../harness/golden.ts";
import { goldenConfig } from "../harness/golden_wan.ts";
import { netTime, wanNetwork } from "../harness/wan_net.ts";

/** Value, tangent and gradients of the Wan DiT against the golden vectors. */

const dit = golden("wan_dit.safetensors");
const grads = golden("wan_dit_grads.safetensors");
const config = goldenConfig(dit.metadata.config);
const values = (name: string): Float64Array => hostValues(framesFirst(dit.get(name)));
const [t, tDot] = [values("t"), values("t_dot")];

test("rope angles", () => {
  const [, , T, Y, X] = dit.get("x").shape;
  const angles = ropeAngles(config.dim / config.heads, [T / config.patch[0], Y / config.patch[1], X / config.patch[2]]);
  expect(relativeError(angles, values("rope_freqs"))).toBeLessThan(1e-6);
});

onEachDevice((device, test) => {
  function build(dtype: DType, checkpoint: CheckpointMode): Network {
    const model = wanNetwork(device(), config, { dtype, residual: dtype, checkpoint, trainable: true });
    model.load(dit.under("params."), "golden");
    return model;
  }

  function inputs(dtype: DType) {
    const [x, xDot, yBar] = ["x", "x_dot", "y_bar"].map((n) => device().fromHost(framesFirst(dit.get(n))).to(dtype));
    const context = device().fromHost(dit.get("context")).to(dtype);
    return { x, xDot, context, yBar };
  }

  /** A tensor, which must be there, against stored values. */
  const errorOf = (got: Tensor | null | undefined, want: Float64Array): number =>
    relativeError(got?.values() ?? [], want);

  describe("Wan DiT against the public reference", () => {
    // f32 rounding against the stated tolerance; f64 against the float32 rounding of the stored values.
    for (const [dtype, tolY, tolGrad] of [["f32", 2e-5, 5e-5], ["f64", 3e-7, 1e-6]] as const) {
      test(`value and tangents, ${dtype}`, () => {
        using _scope = device().scope();
        const model = build(dtype, "none");
        const { x, xDot, context } = inputs(dtype);
        const run = (dx: Tensor | null, dt: Float64Array | null) => {
          const tape = new Tape(device(), { record: false });
          return model.forward(tape, constant(x, dx), [netTime(device(), t, dt)], constant(context));
        };
        const both = run(xDot, tDot);
        expect(errorOf(both.x, values("y"))).toBeLessThan(tolY);
        expect(errorOf(both.dot, values("y_dot"))).toBeLessThan(tolY);
        expect(errorOf(run(xDot, null).dot, values("y_dot_x_only"))).toBeLessThan(tolY);
        expect(errorOf(run(null, tDot).dot, values("y_dot_t_only"))).toBeLessThan(tolY);
        expect(run(null, null).dot).toBeNull();
      });

      for (const mode of CHECKPOINT_MODES) {
        test(`every gradient, ${dtype}, checkpoint ${mode}, tangent in the same pass`, () => {
          using _scope = device().scope();
          const model = build(dtype, mode);
          const { x, xDot, context, yBar } = inputs(dtype);
          const tape = new Tape(device(), { record: true });
          const [vx, vc] = [leaf(x, xDot), leaf(context)];
          const y = model.forward(tape, vx, [netTime(device(), t, tDot)], vc);
          expect(errorOf(y.dot, values("y_dot"))).toBeLessThan(tolY);
          tape.backward(y, yBar);
          const all = model.params.grad as Tensor;
          const errors = model.params.names.map((name): [string, number] => {
            const grad = model.params.window(all, name);
            return [name, errorOf(grad, hostValues(grads.get(`grads.${name}`)))];
          });
          errors.push(["grads_x", errorOf(vx.node?.bar, hostValues(framesFirst(grads.get("grads_x"))))]);
          errors.push(["grads_context", errorOf(vc.node?.bar, hostValues(grads.get("grads_context")))]);
          expect(errors.filter(([, e]) => !(e < tolGrad))).toEqual([]);
        });
      }
    }
  });
});
