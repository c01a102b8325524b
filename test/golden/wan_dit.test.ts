import { expect, test } from "bun:test";
import { hostValues } from "../../core/dtype.ts";
import { ropeAngles } from "../../core/nn/rope.ts";
import { cpu, type TestFunction } from "../harness/device.ts";
import { golden, relativeError } from "../harness/golden.ts";
import { goldenDit } from "../harness/golden_dit.ts";
import { goldenConfig } from "../harness/golden_wan.ts";

goldenDit(cpu, test as TestFunction);

const dit = golden("wan_dit.safetensors");
test("rope angles", () => {
  const c = goldenConfig(dit.metadata.config);
  const [, , T, Y, X] = dit.get("x").shape;
  const angles = ropeAngles(c.dim / c.heads, [T / c.patch[0], Y / c.patch[1], X / c.patch[2]]);
  expect(relativeError(angles, hostValues(dit.get("rope_freqs")))).toBeLessThan(1e-6);
});
