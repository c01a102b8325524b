import { at, guided, trigDenoiser, type VelocityNet } from "../diffusion/predict.ts";
import { RcmError } from "../error.ts";
import type { MeanVelocityNet } from "../losses/meanflow.ts";
import { SAMPLERS } from "../samplers/list.ts";
import { sampleNoise, type NoiseKey } from "../samplers/noise.ts";
import type { RequestTime, Sampler, SamplerRequest } from "../samplers/sampler.ts";
import { constant, Tape } from "../tape.ts";
import { sampleReduce, type Device, type Scope, type Tensor } from "../tensor.ts";
import { repeated } from "./build.ts";
import type { SamplePlan } from "./plan.ts";

/** What samplers can ask a network for; `meanVelocity` is null for a network of one time. */
export interface DrawNet {
  readonly velocity: VelocityNet;
  readonly meanVelocity: MeanVelocityNet | null;
}

/** One batch of latents to draw. */
export interface DrawJob {
  plan: SamplePlan;
  /** Of one latent. Shapes: [C, T, Y, X]. */
  shape: readonly number[];
  /** One key a sample. */
  noise: readonly NoiseKey[];
  /** Shapes: [B, M, textDim]; negative [1, M, textDim], used by guidance alone. */
  condition: Tensor;
  negative: Tensor | null;
}

/** Called after each step with its number from 1 and the seconds of its evaluations; this waits for the device. */
export type OnStep = (step: number, seconds: number) => void;

export interface DrawOptions {
  onStep?: OnStep;
  /** Called between evaluations; it throws (E_INTERRUPTED) to stop. */
  stopPoint?: () => void;
  /** Name of the batch's sample b in errors. */
  nameOf?: (b: number) => string;
}

/** Lets signal handlers and timers run: native calls block them. */
export const yieldToEventLoop = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** A stop point: throws E_INTERRUPTED with a message once it was asked to stop. */
export const stopPoint = (asked: (() => boolean) | undefined, op: string, message: () => string) => (): void => {
  if (asked?.()) throw new RcmError("E_INTERRUPTED", message(), { op });
};

/**
 * Draws a batch of latents. Signals are heard between evaluations, and nothing stays on the device when it throws.
 * Shapes: -> [B, C, T, Y, X] f32. Throws: E_NONFINITE naming a sample; what `stopPoint` throws.
 */
export async function draw(net: DrawNet, job: DrawJob, o: DrawOptions = {}): Promise<Tensor> {
  using steps = drawing(net, job, o.onStep);
  for (;;) {
    const { done, value } = steps.next();
    if (done) return expectFinite(value, o.nameOf);
    await yieldToEventLoop();
    o.stopPoint?.();
  }
}

/** The same in one go and unchecked: for previews inside a training run, dry runs and measurements. */
export function drawNow(net: DrawNet, job: DrawJob): Tensor {
  using steps = drawing(net, job);
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
  }
}

/** The loop that runs a sampler. It yields before each evaluation and keeps no more than the sampler still needs. */
function* drawing(net: DrawNet, job: DrawJob, onStep?: OnStep): Generator<void, Tensor, void> {
  const { device } = job.condition;
  using run = device.scope();
  const sampler = start(device, job);
  const reply = answers(net, job);
  let answer: Tensor | null = null;
  for (let step = 1; ; step++) {
    const { done, value } = advance(run, sampler, answer);
    if (done) return run.keep(value);
    yield;
    const began = performance.now();
    answer = device.keep(() => reply(value));
    if (!onStep) continue;
    device.sync();
    onStep(step, (performance.now() - began) / 1000);
  }
}

function start(device: Device, { plan, shape, noise }: DrawJob): Sampler {
  const renoise = plan.mode === "sde" ? (k: number) => sampleNoise(device, shape, noise, k + 1) : null;
  return SAMPLERS[plan.sampler].start({ x: sampleNoise(device, shape, noise, 0), times: plan.times, renoise });
}

/** Runs a sampler to its next request or its end, then frees what neither asks for. */
function advance(run: Scope, sampler: Sampler, answer: Tensor | null): IteratorResult<SamplerRequest, Tensor> {
  using scope = run.device.scope();
  const result = answer ? sampler.next(answer) : sampler.next();
  const live = result.done ? [result.value] : [result.value.x, ...(result.value.keep ?? [])];
  for (const t of live) scope.keep(t);
  const kept = new Set(live.map((t) => t.storage));
  for (const storage of [...run.owned]) if (!kept.has(storage)) storage.free();
  return result;
}

/** How the network answers requests. Throws: E_ARG when it has no answer of that kind. */
function answers(net: DrawNet, { plan, condition, negative }: DrawJob): (request: SamplerRequest) => Tensor {
  const B = condition.shape[0];
  const unwanted = (n: number): Tensor => {
    if (negative) return repeated(negative, n);
    throw new RcmError("E_INTERNAL", "guidance needs the negative prompt's embedding", { op: "sampler" });
  };
  const velocity = guided({ field: net.velocity, x0: net.velocity }, plan.guidance, unwanted).field;
  const time = (t: RequestTime) => at(typeof t === "number" ? new Float64Array(B).fill(t) : t);
  return (request) => {
    const tape = new Tape(condition.device, { record: false });
    const x = constant(request.x);
    switch (request.want) {
      case "velocity":
        return velocity(tape, x, time(request.tRf), condition).x;
      case "clean":
        return trigDenoiser(velocity).x0(tape, x, time(request.tTrig), condition).x;
      case "mean velocity": {
        if (net.meanVelocity) return net.meanVelocity(tape, x, time(request.tRf), time(request.rRf), condition).x;
        throw new RcmError("E_ARG", "MeanFlow sampling needs a network of two times", { op: "sampler" });
      }
    }
  };
}

function expectFinite(latents: Tensor, nameOf = (b: number): string => `sample ${b}`): Tensor {
  const bad = sampleReduce(latents, "nonfinite").findIndex((n) => n > 0);
  if (bad < 0) return latents;
  latents.free();
  throw new RcmError("E_NONFINITE", `the latent of ${nameOf(bad)} holds values that are not finite`, { op: "sample" });
}
