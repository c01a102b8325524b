import { describe, expect, test } from "bun:test";
import { featureStats, frechetDistance } from "../../../core/metrics/frechet.ts";
import { prdc } from "../../../core/metrics/prdc.ts";
import { vendiScore, withinPromptVendi } from "../../../core/metrics/vendi.ts";
import reference from "./reference.json";

/** Every value matches an independent implementation (see `provenance` in the JSON) to this relative error. */
const TOLERANCE = 1e-8;

function expectClose(got: number, want: number): void {
  expect(Math.abs(got - want)).toBeLessThanOrEqual(TOLERANCE * Math.abs(want));
}

for (const c of reference.cases) {
  describe(`reference: ${c.name}`, () => {
    const real = Float32Array.from(c.real);
    const fake = Float32Array.from(c.fake);

    test("Frechet distance", () => {
      expectClose(frechetDistance(featureStats(real, c.n, c.d), featureStats(fake, c.m, c.d)), c.fd);
    });

    for (const { k, ...want } of c.prdc) {
      test(`PRDC, k = ${k}`, () => {
        const got = prdc(real, fake, c.d, k);
        expectClose(got.precision, want.precision);
        expectClose(got.recall, want.recall);
        expectClose(got.density, want.density);
        expectClose(got.coverage, want.coverage);
      });
    }

    test("Vendi score", () => {
      expectClose(vendiScore(fake, c.m, c.d), c.vendiCosine);
      expectClose(vendiScore(fake, c.m, c.d, { kernel: "rbf", gamma: c.gamma }), c.vendiRbf);
      expectClose(withinPromptVendi(fake, c.labels, [c.m, c.d]), c.vendiWithin);
    });
  });
}
