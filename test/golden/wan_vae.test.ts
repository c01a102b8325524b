import { expect, test } from "bun:test";
import { hostValues } from "../../core/dtype.ts";
import { WAN_VAE } from "../../core/models/wan_vae/config.ts";
import { cpu, type TestFunction } from "../harness/device.ts";
import { goldenVaeTests, vaeGolden } from "../harness/golden_vae.ts";

goldenVaeTests(cpu, test as TestFunction, ["f32", "f64", "bf16"]);

test("normalisation constants", () => {
  const g = vaeGolden();
  for (const name of ["mean", "std"] as const) expect([...hostValues(g.get(name))]).toEqual(WAN_VAE[name].map(Math.fround));
});
