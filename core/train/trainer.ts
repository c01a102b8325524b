import type { DType, HostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { mean, type LossResult } from "../losses/loss.ts";
import { tokensOf, type Net } from "../models/family.ts";
import type { ParamSet } from "../nn/params.ts";
import { AdamW } from "../optim/adamw.ts";
import { powerEmaBeta, powerEmaGamma } from "../optim/ema.ts";
import { learningRate } from "../optim/lr.ts";
import type { OptimizerRecipe, Recipe } from "../recipe/schema.ts";
import type { Device, Tensor } from "../tensor.ts";
import { Tape } from "../tape.ts";
import type { LoadOptions } from "../weights/fit.ts";
import { RecordedNet } from "../networks/recorded.ts";
import { copyWeights, createNetwork, denoiserOf, FROM_TEACHER, guidedTeacher, loadWeights, preciseDenoiser, recipeNet, repeated, wantsSecondTime, type WeightSource } from "../networks/build.ts";
import { meanVelocityNet, velocityNet, type Network } from "../networks/network.ts";
import { criticStep, Draws, phaseOf, publicStudentCount, studentLosses, type Networks } from "./objective.ts";

/** One micro-batch on the host. Shapes: latents [B, C, T, Y, X], embeds [B, M, textDim]. */
export interface HostBatch {
  latents: HostTensor;
  embeds: HostTensor;
}

export interface StepResult {
  kind: "student" | "critic";
  stats: Record<string, number>;
  gradNorm: number;
  lr: number;
  skipped: number;
}

export interface TrainerWeights {
  teacher: WeightSource | null;
  /** Starting weights of the student: the teacher's, copied on the device; others; or null: fresh. */
  student: typeof FROM_TEACHER | WeightSource | null;
  /** How they are loaded: partially or not, and who is told. */
  options?: LoadOptions;
}

/** Above this many values in an activation a GPU is busy for longer than it takes to queue the work. */
const SMALL = 1 << 22;

/** Whether evaluations are recorded and launched as one. */
function recordsCalls(device: Device, recipe: Recipe): boolean {
  const { data, train } = recipe;
  if (device.backend.kind !== "cuda" || train.graphs === "off") return false;
  const { config } = recipeNet(recipe);
  return train.graphs === "on" || train.batch * tokensOf(config, data.shape) * config.dim <= SMALL;
}

const optimizerOf = (model: Network, o: OptimizerRecipe): AdamW =>
  new AdamW(model.params, { betas: o.betas, eps: o.eps, weightDecay: o.weight_decay, maxGradNorm: o.max_grad_norm });

/** The networks, optimizers and counters of a run: everything but files and clocks. */
export class Trainer {
  readonly student: Network;
  readonly critic: Network | null;
  readonly teacher: Network | null;
  readonly studentOpt: AdamW;
  readonly criticOpt: AdamW | null;
  /** f32 average of the student's weights, flat. */
  readonly ema: Tensor;
  readonly nets: Networks;
  /** Iterations done. */
  step = 0;
  skipped = 0;
  private readonly gamma: number;
  private readonly recorded: RecordedNet[] = [];

  constructor(
    readonly device: Device,
    readonly recipe: Recipe,
    weights: TrainerWeights,
    text: { negative: Tensor; empty: Tensor },
  ) {
    const { objective, optimizer } = recipe;
    device.lib.deterministic(Number(recipe.train.deterministic));
    const secondTime = wantsSecondTime(recipe);
    this.teacher = weights.teacher ? createNetwork(device, recipe, { trainable: false, secondTime: false }) : null;
    if (this.teacher && weights.teacher) loadWeights(this.teacher, weights.teacher, "teacher", weights.options);
    const teacher = this.teacher?.params;
    this.student = createNetwork(device, recipe, { trainable: true, secondTime });
    this.student.params.init(recipe.train.seed);
    if (weights.student === FROM_TEACHER) copyWeights(teacher as ParamSet, this.student.params);
    else if (weights.student) loadWeights(this.student, weights.student, "student", weights.options);
    this.critic = objective.dmd ? createNetwork(device, recipe, { trainable: true, secondTime: false }) : null;
    if (this.critic && teacher) copyWeights(teacher, this.critic.params);
    this.studentOpt = optimizerOf(this.student, optimizer);
    this.criticOpt = this.critic && objective.dmd ? optimizerOf(this.critic, objective.dmd.critic) : null;
    this.ema = device.persistent(() => device.empty(this.student.params.flat.shape, "f32").set(this.studentOpt.values));
    this.gamma = powerEmaGamma(recipe.ema.length);

    const evaluated = (model: Network): Net => {
      if (!recordsCalls(device, recipe)) return model;
      const recorded = new RecordedNet(model);
      this.recorded.push(recorded);
      return recorded;
    };
    const student = evaluated(this.student);
    const teacher_ = this.teacher && evaluated(this.teacher);
    const negative = text.negative;
    const teacherVelocity = teacher_ && velocityNet(teacher_);
    this.nets = {
      student: denoiserOf(student),
      precise: preciseDenoiser(this.student),
      velocity: velocityNet(student),
      teacher: teacher_ && guidedTeacher(teacher_, recipe.teacher?.guidance ?? 1, negative),
      critic: this.critic && denoiserOf(evaluated(this.critic)),
      meanflow: secondTime
        ? { student: meanVelocityNet(student), teacher: teacherVelocity, uncondition: (B) => repeated(negative, B) }
        : null,
      empty: text.empty,
    };
  }

  /** Weights of the student for sampling: the EMA in the model's dtype, or the trained ones. */
  sampler(kind: "ema" | "student"): Network {
    return this.student.withWeights(kind === "ema" ? this.ema.to(this.student.params.dtype as DType) : this.student.params.flat);
  }

  /**
   * One iteration over `accumulate` micro-batches: losses, gradients, optimizer, EMA. On an error nothing is updated.
   * Throws: E_NONFINITE naming loss, tensor and step.
   */
  iterate(batches: HostBatch[]): StepResult {
    const { recipe, device } = this;
    const phase = phaseOf(recipe, this.step);
    const isStudent = phase.kind === "student";
    const opt = isStudent ? this.studentOpt : (this.criticOpt as AdamW);
    const schedule = isStudent ? recipe.optimizer : (recipe.objective.dmd as NonNullable<Recipe["objective"]["dmd"]>).critic;
    const stats: Record<string, number[]> = {};
    let skipped = 0;
    for (const model of this.recorded) model.reset();
    opt.params.zeroGrad();
    batches.forEach((host, micro) => {
      using _scope = device.scope();
      const batch = { x0: device.fromHost(host.latents).to(this.activations), condition: device.fromHost(host.embeds).to(this.activations) };
      const draws = new Draws(recipe.train.seed, this.step, micro * recipe.train.batch);
      const losses = this.losses(isStudent, batch, draws);
      for (;;) {
        // What one loss recorded is gone before the next one is computed.
        using _loss = device.scope();
        const next = losses.next();
        if (next.done) break;
        const { tape, result } = next.value;
        this.backward(tape, result, batches.length);
        skipped += result.skipped;
        for (const [name, value] of Object.entries(result.stats)) (stats[name] ??= []).push(value);
      }
    });
    const gradNorm = opt.gradNorm();
    if (!Number.isFinite(gradNorm)) throw new RcmError("E_NONFINITE", `gradient norm of the ${phase.kind} is ${gradNorm} at step ${this.step}`, { op: phase.kind });
    const lr = learningRate(opt.updates, { lr: schedule.lr, warmupSteps: schedule.warmup_steps, decaySteps: schedule.decay_steps, lrMin: schedule.lr_min, totalSteps: this.updatesOf(phase.kind) });
    opt.step(lr, gradNorm, isStudent ? { flat: this.ema, beta: this.emaBeta() } : null);
    this.step++;
    this.skipped += skipped;
    return { kind: phase.kind, stats: Object.fromEntries(Object.entries(stats).map(([k, v]) => [k, mean(v)])), gradNorm, lr, skipped };
  }

  /** The GPU's own milliseconds in recorded evaluations since the last call; null when nothing is recorded. */
  recordedMs(): number | null {
    return this.recorded.length === 0 ? null : this.recorded.reduce((ms, model) => ms + model.replayMs(), 0);
  }

  private get activations(): DType {
    return this.recipe.model.residual as DType;
  }

  private *losses(isStudent: boolean, batch: { x0: Tensor; condition: Tensor }, draws: Draws): Generator<{ tape: Tape; result: LossResult }> {
    const tape = (): Tape => new Tape(this.device, { record: true, checkFinite: process.env.RCM_CHECK_FINITE === "1" });
    try {
      if (isStudent) yield* studentLosses(tape, this.nets, this.recipe, batch, draws, this.studentOpt.updates);
      else {
        const t = tape();
        yield { tape: t, result: criticStep(t, this.nets, this.recipe, batch, draws, this.criticOpt?.updates ?? 0) };
      }
    } catch (error) {
      if (error instanceof RcmError && error.code === "E_NONFINITE") {
        throw new RcmError("E_NONFINITE", `${error.message} (step ${this.step})`, { op: error.op, cause: error });
      }
      throw error;
    }
  }

  /** Gradient of the batch mean. */
  private backward(tape: Tape, { loss_B }: LossResult, micros: number): void {
    const B = loss_B.x.numel;
    tape.backward(loss_B, this.device.fromValues(new Float64Array(B).fill(1 / (B * micros)), [B], "f64"));
  }

  private emaBeta(): number {
    const { ema } = this.recipe;
    const updates = ema.counter === "updates" ? this.studentOpt.updates : publicStudentCount(this.recipe, this.step);
    return powerEmaBeta(this.gamma, updates + ema.shift);
  }

  /** Optimizer updates of a whole run, for learning-rate decay. */
  private updatesOf(kind: "student" | "critic"): number {
    const { steps } = this.recipe.train;
    const { dmd } = this.recipe.objective;
    const { warmup } = phaseOf(this.recipe, 0);
    if (!dmd) return steps;
    const students = Math.min(warmup, steps) + Math.ceil(Math.max(0, steps - warmup) / dmd.student_every);
    return kind === "student" ? students : steps - students;
  }
}
