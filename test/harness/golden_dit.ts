import { describe, expect } from "bun:test";
import type { Network } from "../../core/networks/network.ts";
import { netTime, wanNetwork } from "./wan_net.ts";
import { hostValues, type DType } from "../../core/dtype.ts";
import type { Device } from "../../core/tensor.ts";
import { CHECKPOINT_MODES, constant, leaf, Tape, type CheckpointMode } from "../../core/tape.ts";
import type { TestFunction } from "./device.ts";
import { golden, relativeError } from "./golden.ts";
import { goldenConfig } from "./golden_wan.ts";

const dit = golden("wan_dit.safetensors");
const grads = golden("wan_dit_grads.safetensors");

/** Value, tangent and gradients of the Wan DiT against the golden vectors, on a device. */
export function goldenDit(device: () => Device, test: TestFunction): void {
  function build(dtype: DType, checkpoint: CheckpointMode): Network {
    const model = wanNetwork(device(), goldenConfig(dit.metadata.config), { dtype, residual: dtype, checkpoint, trainable: true });
    model.load(dit.under("params."), "golden");
    return model;
  }

  const inputs = (dtype: DType) => {
    const up = (name: string) => device().fromHost(dit.get(name)).to(dtype);
    return { x: up("x"), xDot: up("x_dot"), context: up("context"), yBar: up("y_bar"), t: hostValues(dit.get("t")), tDot: hostValues(dit.get("t_dot")) };
  };

  describe("Wan DiT against the public reference", () => {
    // f32 rounding against the stated tolerance; f64 against the float32 rounding of the stored values.
    for (const [dtype, tolY, tolGrad] of [["f32", 2e-5, 5e-5], ["f64", 3e-7, 1e-6]] as const) {
      test(`value and tangents, ${dtype}`, () => {
        using _scope = device().scope();
        const model = build(dtype, "none");
        const { x, xDot, context, t, tDot } = inputs(dtype);
        const run = (dx: boolean, dt: boolean) =>
          model.forward(new Tape(device(), { record: false }), constant(x, dx ? xDot : null), [netTime(device(), t, dt ? tDot : null)], constant(context));
        const both = run(true, true);
        expect(relativeError(both.x.values(), hostValues(dit.get("y")))).toBeLessThan(tolY);
        expect(relativeError((both.dot as NonNullable<typeof both.dot>).values(), hostValues(dit.get("y_dot")))).toBeLessThan(tolY);
        for (const [name, v] of [["y_dot_x_only", run(true, false)], ["y_dot_t_only", run(false, true)]] as const) {
          expect(relativeError((v.dot as NonNullable<typeof v.dot>).values(), hostValues(dit.get(name)))).toBeLessThan(tolY);
        }
        expect(run(false, false).dot).toBeNull();
      });

      for (const mode of CHECKPOINT_MODES) {
        test(`every gradient, ${dtype}, checkpoint ${mode}, tangent in the same pass`, () => {
          using _scope = device().scope();
          const model = build(dtype, mode);
          const { x, xDot, context, yBar, t, tDot } = inputs(dtype);
          const tape = new Tape(device(), { record: true });
          const [vx, vc] = [leaf(x, xDot), leaf(context)];
          const y = model.forward(tape, vx, [netTime(device(), t, tDot)], vc);
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
  });
}
