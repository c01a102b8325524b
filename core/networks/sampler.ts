import { guided, at, evaluate, trigDenoiser, type Denoiser, type VelocityNet } from "../diffusion/predict.ts";
import type { MeanVelocityNet } from "../losses/meanflow.ts";
import { euler, type Velocity } from "../samplers/euler.ts";
import { rcmRf, rcmTrig } from "../samplers/rcm.ts";
import { fewStepTimes, teacherTimes } from "../samplers/schedule.ts";
import { unipc } from "../samplers/unipc.ts";
import { combine } from "../ops/lincomb.ts";
import { rfFromTrig } from "../diffusion/path.ts";
import { latentShape, type Recipe } from "../recipe/schema.ts";
import { SAMPLE_STRIDE, setSampleKey, streamOf } from "../rng.ts";
import type { Tensor } from "../tensor.ts";
import { constant, Tape } from "../tape.ts";
import { repeated } from "./build.ts";
import { meanVelocityNet, velocityNet, type Network } from "./network.ts";

/** Noise of a set of samples: sample i of the whole set always starts from the same values, however it is batched. */
export interface SampleNoise {
  seed: number;
  /** Index of the batch's first sample in the whole set, or of each sample. */
  first: number | readonly number[];
}

const all = (x: Tensor, t: number): Float64Array => new Float64Array(x.shape[0]).fill(t);

/** Standard normal latents, one stream per sample. `draw` tells the initial noise (0) from re-noisings. */
export function sampleNoise(like: Tensor, { seed, first }: SampleNoise, draw: number): Tensor {
  const stream = (i: number): number => streamOf(setSampleKey(i, draw));
  if (typeof first === "number") return like.device.randnRows(like.shape, like.dtype, seed, stream(first), SAMPLE_STRIDE);
  const out = like.device.empty(like.shape, like.dtype);
  const each = like.numel / like.shape[0];
  first.forEach((i, b) => out.window(b * each, [each]).setRandn(seed, stream(i)));
  return out;
}

/** Latents of a few-step student. Shapes: condition [B, M, textDim] -> [B, C, T, Y, X]. Source: rCM section 4.3. */
export function sampleStudent(model: Network, recipe: Recipe, condition: Tensor, steps: number, noise: SampleNoise): Tensor {
  const { sample } = recipe;
  const { device } = condition;
  const like = device.empty([condition.shape[0], ...latentShape(recipe)], "f32");
  const init = sampleNoise(like, noise, 0);
  const times = fewStepTimes(steps, sample.sigma_max, sample.mid_times);
  const again = (k: number): Tensor => sampleNoise(like, noise, k + 1);
  const inference = (): Tape => new Tape(device, { record: false });
  if (model.config.secondTime) return sampleMeanFlow(meanVelocityNet(model), init, times, condition);
  const net = velocityNet(model);
  if (sample.form === "trig") {
    const denoiser: Denoiser = trigDenoiser(net);
    return rcmTrig((x, t) => evaluate(denoiser.x0, x, all(x, t), condition), init, times, again);
  }
  return rcmRf((x, t) => net(inference(), constant(x), at(all(x, t)), condition).x, init, times, again);
}

/** MeanFlow sampling: x_r = x_t - (t - r) u(x_t, t, r) along the same times. Source: MeanFlow Algorithm 2. */
function sampleMeanFlow(net: MeanVelocityNet, init: Tensor, times: Float64Array, condition: Tensor): Tensor {
  const rf = Array.from(times, (t) => (t === 0 ? 0 : rfFromTrig(t)));
  let x = init;
  for (let k = 0; k + 1 < rf.length; k++) {
    const [t, r] = [rf[k], rf[k + 1]];
    const u = net(new Tape(x.device, { record: false }), constant(x), at(all(x, t)), at(all(x, r)), condition).x;
    x = combine([[1, x], [r - t, u]]);
  }
  return x;
}

/** Latents of the guided teacher with the recipe's sampler. Shapes: condition [B, M, textDim], negative [1, M, textDim]. */
export function sampleTeacher(model: Network, recipe: Recipe, condition: Tensor, negative: Tensor, noise: SampleNoise, steps = recipe.sample.teacher_steps): Tensor {
  const { sample, teacher } = recipe;
  const { device } = condition;
  const init = sampleNoise(device.empty([condition.shape[0], ...latentShape(recipe)], "f32"), noise, 0);
  const net: VelocityNet = velocityNet(model);
  const mixed = guided({ field: net, x0: net }, teacher?.guidance ?? 1, (B) => repeated(negative, B));
  const velocity: Velocity = (x, t) => mixed.field(new Tape(device, { record: false }), constant(x), at(all(x, t)), condition).x;
  const times = teacherTimes(steps, sample.teacher_shift, sample.teacher_sigma_max);
  return sample.teacher_sampler === "unipc" ? unipc(velocity, init, times) : euler(velocity, init, times);
}
