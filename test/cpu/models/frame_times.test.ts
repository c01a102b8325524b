import { describe, expect, test } from "bun:test";
import { trigDenoiser, at } from "../../../core/diffusion/predict.ts";
import { flowLoss } from "../../../core/losses/flow.ts";
import { scmParts } from "../../../core/losses/scm.ts";
import { velocityNet, type Network } from "../../../core/networks/network.ts";
import { euler } from "../../../core/samplers/euler.ts";
import { constant, leaf, Tape } from "../../../core/tape.ts";
import type { Tensor } from "../../../core/tensor.ts";
import { cpu } from "../../harness/device.ts";
import { relativeError } from "../../harness/golden.ts";
import { wanNetwork } from "../../harness/wan_net.ts";
import { randomize, TINY_WAN } from "../../harness/tiny_wan.ts";

const [B, T] = [2, 3];
const SHAPE = [B, T, 16, 4, 6];
const SAMPLE = Float64Array.of(0.3, 0.8);
/** The same times, one for each frame. */
const SPREAD = Float64Array.from({ length: B * T }, (_, i) => SAMPLE[Math.floor(i / T)]);
const FRAMES = Float64Array.of(0.1, 0.5, 0.9, 0.7, 0.2, 0.4);

/** Tiny networks in f64, so that differences show a wrong tangent. */
const tiny = (seed: number): Network => {
  const model = wanNetwork(cpu(), TINY_WAN, { dtype: "f64", residual: "f64", checkpoint: "none", trainable: true });
  randomize(model.params, seed);
  return model;
};

function setup() {
  const model = tiny(1);
  const [x, xDot] = [1, 2].map((stream) => cpu().randn(SHAPE, "f64", 5, stream));
  const text = cpu().randn([B, 5, TINY_WAN.textDim], "f64", 5, 3);
  return { model, net: velocityNet(model), x, xDot, text };
}
const inference = (): Tape => new Tape(cpu(), { record: false });

describe("times per frame", () => {
  test("equal times for all frames of a sample give the result of one time per sample", () => {
    using _scope = cpu().scope();
    const { net, x, text } = setup();
    const run = (t: Float64Array): Float64Array => net(inference(), constant(x), at(t), text).x.values();
    expect(relativeError(run(SPREAD), run(SAMPLE))).toBeLessThan(1e-13);
    expect(relativeError(run(FRAMES), run(SAMPLE))).toBeGreaterThan(1e-2);
  });

  test("with a time per frame, tangent and gradients agree with finite differences", () => {
    using _scope = cpu().scope();
    const { net, x, xDot, text } = setup();
    const tDot = FRAMES.map((_, i) => Math.cos(i));
    const y = net(inference(), constant(x, xDot), at(FRAMES, tDot), text);
    const H = 1e-6;
    const moved = (h: number): Float64Array => {
      const shifted = cpu().empty(SHAPE, "f64").set(x).axpy(xDot, h);
      return net(inference(), constant(shifted), at(FRAMES.map((t, i) => t + h * tDot[i])), text).x.values();
    };
    const [plus, minus] = [moved(H), moved(-H)];
    expect(relativeError(y.dot?.values() ?? [], plus.map((v, i) => (v - minus[i]) / (2 * H)))).toBeLessThan(1e-6);
    // Adjoint identity over x: <yBar, J xDot> = <J^T yBar, xDot>.
    const alongX = net(inference(), constant(x, xDot), at(FRAMES), text).dot?.values() ?? new Float64Array(0);
    const yBar = cpu().randn(SHAPE, "f64", 5, 4);
    const tape = new Tape(cpu(), { record: true });
    const input = leaf(x);
    tape.backward(net(tape, input, at(FRAMES), text), yBar);
    const dot = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
      Array.from(a).reduce((s, v, i) => s + v * b[i], 0);
    const [left, right] = [dot(yBar.values(), alongX), dot(input.node?.bar?.values() ?? [], xDot.values())];
    expect(Math.abs(left - right) / Math.abs(left)).toBeLessThan(1e-11);
  });

  test("losses accept times per frame: equal times give the loss of one time per sample", () => {
    using _scope = cpu().scope();
    const { model, net, x, text } = setup();
    const eps = cpu().randn(SHAPE, "f64", 6, 1);
    const flow = (tRf: Float64Array): Float64Array =>
      flowLoss(inference(), net, { x0: x, condition: text }, { tRf, eps }, { onNonfinite: "raise" }).loss.x.values();
    const perFrame = flow(SPREAD);
    expect(perFrame.length).toBe(B * T);
    const sums = flow(SAMPLE).map((_, b) => perFrame.slice(b * T, (b + 1) * T).reduce((s, v) => s + v, 0));
    expect(relativeError(sums, flow(SAMPLE))).toBeLessThan(1e-12);

    const student = trigDenoiser(net);
    const teacher = trigDenoiser(velocityNet(tiny(9)));
    const o = {
      tangent: "jvp",
      fdSize: 1e-4,
      passes: "one",
      ramp: 1,
      rampScope: "x_t",
      scale: 1,
      precise: null,
      onNonfinite: "raise",
    } as const;
    const parts = (t: Float64Array): Tensor =>
      scmParts(inference(), student, teacher, { x0: x, condition: text }, { tTrig: t.map((v) => v * 1.5), eps }, o).g;
    expect(relativeError(parts(SPREAD).values(), parts(SAMPLE).values())).toBeLessThan(1e-9);
    model.params[Symbol.dispose]();
  });

  test("a sampler's request may have times per frame", () => {
    using _scope = cpu().scope();
    const { net, x, text } = setup();
    const answer = (t: Float64Array): Float64Array => {
      const sampler = euler(x, [0.9]);
      const { value } = sampler.next();
      const v = net(inference(), constant((value as { x: Tensor }).x), at(t), text).x;
      return (sampler.next(v).value as Tensor).values();
    };
    const [perFrame, perSample] = [B * T, B].map((n) => answer(new Float64Array(n).fill(0.9)));
    expect(relativeError(perFrame, perSample)).toBeLessThan(1e-13);
  });
});
