import { describe, expect, test } from "bun:test";
import { velocityNet } from "../../../core/networks/network.ts";
import { at } from "../../../core/diffusion/predict.ts";
import { concatChannels, experts, pictureCondition } from "../../../core/sample/i2v.ts";
import { residentNet } from "../../../core/networks/net.ts";
import { constant, Tape } from "../../../core/tape.ts";
import { firstFrame } from "../../../core/video/image.ts";
import { cpu } from "../../harness/device.ts";
import { TINY_WAN, tinyWan } from "../../harness/tiny_wan.ts";

describe("what an I2V network sees", () => {
  test("four mask channels, 1 in the first latent frame only, then the picture's latent", () => {
    using _scope = cpu().scope();
    const [C, T, Y, X] = [16, 3, 2, 4];
    const latent = cpu().randn([1, T, C, Y, X], "bf16", 1, 1);
    const c = pictureCondition(latent);
    expect(c.shape).toEqual([1, T, 20, Y, X]);
    const [v, want] = [c.values(), latent.values()];
    for (let t = 0; t < T; t++) {
      const frame = v.subarray(t * 20 * Y * X, (t + 1) * 20 * Y * X);
      expect([...frame.subarray(0, 4 * Y * X)]).toEqual(new Array(4 * Y * X).fill(t === 0 ? 1 : 0));
      expect([...frame.subarray(4 * Y * X)]).toEqual([...want.subarray(t * C * Y * X, (t + 1) * C * Y * X)]);
    }
    expect(() => pictureCondition(cpu().zeros([2, T, C, Y, X], "f32"))).toThrow(
      expect.objectContaining({ code: "E_SHAPE" }),
    );
  });

  test("channels of x, then of the condition, for every sample", () => {
    using _scope = cpu().scope();
    const x = cpu().fromValues([...Array(12).keys()], [2, 1, 2, 1, 3], "f32");
    const one = cpu().fromValues([100, 101, 102], [1, 1, 1, 1, 3], "f32");
    expect([...concatChannels(x, one).values()]).toEqual([
      0, 1, 2, 3, 4, 5, 100, 101, 102, 6, 7, 8, 9, 10, 11, 100, 101, 102,
    ]);
    const each = cpu().fromValues([100, 101, 102, 200, 201, 202], [2, 1, 1, 1, 3], "f32");
    expect([...concatChannels(x, each).values()].slice(-3)).toEqual([200, 201, 202]);
    expect(() => concatChannels(x, cpu().zeros([1, 1, 1, 1, 4], "f32"))).toThrow(
      expect.objectContaining({ code: "E_SHAPE" }),
    );
  });

  test("the picture comes first, grey follows", () => {
    using _scope = cpu().scope();
    const v = firstFrame(cpu(), { width: 2, height: 1, pixels: Uint8Array.from([0, 51, 255, 255, 0, 127.5]) }, 3);
    expect(v.shape).toEqual([1, 3, 3, 1, 2]);
    const want = [[-1, 1], [0.4 - 1, -1], [1, 127 / 127.5 - 1]].flatMap((first) => [...first, 0, 0, 0, 0]);
    v.values().forEach((value, i) => expect(value).toBeCloseTo(want[i], 6));
  });

  test("samples on both sides of the boundary are refused", () => {
    using _scope = cpu().scope();
    using both = experts(
      residentNet(tinyWan(cpu(), TINY_WAN, "f32", 1)),
      residentNet(tinyWan(cpu(), TINY_WAN, "f32", 2)),
    );
    const x = constant(cpu().zeros([2, 1, 16, 2, 2], "f32"));
    const text = cpu().zeros([2, 5, 24], "f32");
    const run = (...t: number[]): unknown =>
      both.velocity(new Tape(cpu(), { record: false }), x, at(Float64Array.from(t)), text);
    expect(() => run(0.95, 0.5)).toThrow(expect.objectContaining({ code: "E_ARG" }));
    run(0.9, 0.95);
    run(0.89, 0.1);
  });
});

test("without record a deep network holds no more than a shallow one", () => {
  const peakOf = (layers: number): number => {
    using _scope = cpu().scope();
    const model = tinyWan(cpu(), { ...TINY_WAN, layers }, "f32");
    const x = cpu().randn([1, 2, 16, 24, 24], "f32", 1, 1);
    const text = cpu().zeros([1, 5, 24], "f32");
    const run = (): unknown =>
      velocityNet(model)(new Tape(cpu(), { record: false }), constant(x), at(Float64Array.of(0.5)), text);
    run(); // rope tables
    cpu().resetPeak();
    const before = cpu().memory().current;
    run();
    const peak = cpu().memory().peak - before;
    model.params.flat.free();
    return peak;
  };
  expect(peakOf(12)).toBeLessThan(1.02 * peakOf(3));
}, 60_000);
