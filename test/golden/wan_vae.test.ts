import { describe, expect, test } from "bun:test";
import { hostValues, type DType } from "../../core/dtype.ts";
import { WAN_VAE } from "../../core/models/wan_vae/config.ts";
import type { Tensor } from "../../core/tensor.ts";
import { onEachDevice } from "../harness/device.ts";
import { relativeError } from "../harness/golden.ts";
import { decodeAll, goldenVae, vaeConfig, vaeGolden } from "../harness/golden_vae.ts";
import { PlainVae } from "../harness/reference/networks/wan_vae.ts";
import { plainOf } from "../harness/reference/plain.ts";

/** The Wan2.1 autoencoder against the public reference. */

const g = vaeGolden();
const values = (name: string): Float64Array => hostValues(g.get(name));

const PASSES = [
  { pass: "encode", from: "video", to: "latent" },
  { pass: "decode", from: "z", to: "decoded" },
  { pass: "decode", from: "latent", to: "recon_of_latent" },
] as const;
type Pass = (typeof PASSES)[number];

const errors = new Map<string, number>();
/** Error of plain loops that round where the autoencoder stores. */
function plainError({ pass, from, to }: Pass, dtype: DType): number {
  const key = `${to} ${dtype}`;
  const vae = new PlainVae(vaeConfig(g.metadata.config), g.under("params."), dtype);
  if (!errors.has(key)) errors.set(key, relativeError(vae[pass](plainOf(g.get(from))).v, values(to)));
  return errors.get(key) as number;
}

/**
 * f64: what storing the vectors in f32 leaves, grown by the decoder where it starts from a stored latent; f32: their
 * tolerance; 16-bit types: twice the error of a plain run.
 */
function boundOf(pass: Pass, dtype: DType): number {
  if (dtype === "f64") return 1e-6;
  return dtype === "f32" ? 2e-5 : 2 * plainError(pass, dtype);
}

describe("Wan2.1 VAE on the host", () => {
  test("normalisation constants", () => {
    for (const name of ["mean", "std"] as const) expect([...values(name)]).toEqual(WAN_VAE[name].map(Math.fround));
  });
  test("plain loops in f64 give the vectors too", () => {
    for (const pass of PASSES) expect([pass.to, plainError(pass, "f64") < 1e-6]).toEqual([pass.to, true]);
  });
});

onEachDevice((device, test) => {
  describe("Wan2.1 VAE against the public reference", () => {
    const at = (name: string, dtype: DType): Tensor =>
      device()
        .fromHost(g.get(name))
        .to(dtype === "f64" ? "f64" : "f32");
    for (const dtype of ["f32", "f64", "bf16", "f16"] as const) {
      // In pieces of one latent frame, and all at once.
      for (const chunk of [1, g.get("z").shape[2]]) {
        for (const pass of PASSES) {
          test(`${dtype}: ${pass.pass} ${pass.from}, ${chunk} latent frames a piece`, () => {
            using _scope = device().scope();
            const vae = goldenVae(device(), dtype);
            const x = at(pass.from, dtype);
            const got = pass.pass === "encode" ? vae.encode(x, { chunk }).values() : decodeAll(vae, x, { chunk });
            expect(relativeError(got, values(pass.to))).toBeLessThan(boundOf(pass, dtype));
          });
        }
      }
    }
  });
});
