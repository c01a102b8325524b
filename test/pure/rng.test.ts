import { expect, test } from "bun:test";
import { philox, Rng, streamOf } from "../../core/rng.ts";
import { cpu } from "../harness/device.ts";

test("Philox4x32-10 known answers (Random123)", () => {
  const max = 0xffffffff;
  expect(philox([0, 0, 0, 0], [0, 0])).toEqual([0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
  expect(philox([max, max, max, max], [max, max])).toEqual([0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
  expect(philox([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0])).toEqual([
    0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1,
  ]);
});

test("device noise is the host's Philox through Box-Muller, element by element", () => {
  using _scope = cpu().scope();
  const [seed, stream] = [2 ** 33 + 5, streamOf({ use: "noise", step: 7, sample: 3 })];
  const got = cpu().randn([11], "f64", seed, stream).values();
  const rng = new Rng(seed, stream);
  const words = Array.from({ length: 12 }, () => (rng.word() + 0.5) / 2 ** 32);
  for (let i = 0; i < 11; i++) {
    const [u, v] = [words[i - (i % 2)], words[i - (i % 2) + 1]];
    expect(got[i]).toBeCloseTo(Math.sqrt(-2 * Math.log(u)) * (i % 2 === 0 ? Math.cos : Math.sin)(2 * Math.PI * v), 12);
  }
  const long = cpu().randn([200_000], "f32", 1, 2).values();
  const mean = long.reduce((a, b) => a + b, 0) / long.length;
  const variance = long.reduce((a, b) => a + (b - mean) ** 2, 0) / long.length;
  expect(Math.abs(mean)).toBeLessThan(0.01);
  expect(Math.abs(variance - 1)).toBeLessThan(0.015);
});
