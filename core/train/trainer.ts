import type { DType } from "../dtype.ts";
import { env } from "../env.ts";
import { RcmError } from "../error.ts";
import { mean, type LossResult } from "../losses/loss.ts";
import { tokensOf, type Net } from "../models/family.ts";
import { recipeNet } from "../networks/build.ts";
import type { Network } from "../networks/network.ts";
import { RecordedNet } from "../networks/recorded.ts";
import { powerEmaBeta, powerEmaGamma } from "../optim/ema.ts";
import { learningRate } from "../optim/lr.ts";
import type { Recipe } from "../recipe/schema.ts";
import type { Device, Tensor } from "../tensor.ts";
import { Tape } from "../tape.ts";
import type { HostBatch } from "./batch.ts";
import { Draws } from "./draws.ts";
import type { Iteration, Method, RecordedLoss } from "./method.ts";
import { methodOf } from "./methods/list.ts";
import { Nets } from "./nets.ts";
import type { Role, RoleName } from "./role.ts";
import { createRoles, type StartingWeights } from "./roles.ts";
import type { TrainState } from "./state.ts";
import type { WeightKind } from "../models/layout.ts";

export interface StepResult {
  /** The role that was trained. */
  kind: RoleName;
  stats: Record<string, number>;
  gradNorm: number;
  lr: number;
  skipped: number;
}

/** Counters that select an iteration of a run. */
export interface Position {
  step: number;
  /** Optimizer updates so far of the role that it trains. */
  updates: number;
}

/** Activations with more values than this keep a GPU busy for longer than kernel launches take. */
const SMALL = 1 << 22;

/** Whether network evaluations are captured in CUDA graphs. */
function recordsCalls(device: Device, recipe: Recipe): boolean {
  const { data, train } = recipe;
  if (device.backend.kind !== "cuda" || train.graphs === "off") return false;
  const { config } = recipeNet(recipe);
  return train.graphs === "on" || train.batch * tokensOf(config, data.shape) * config.dim <= SMALL;
}

/** The networks, optimizers and counters of a run, without files or clocks. */
export class Trainer implements TrainState {
  readonly method: Method;
  readonly roles: ReadonlyMap<RoleName, Role>;
  readonly nets: Nets;
  step = 0;
  skipped = 0;
  private readonly gamma: number;
  private readonly recorded: RecordedNet[] = [];
  private readonly checkFinite = env.checkFinite;

  constructor(
    readonly device: Device,
    readonly recipe: Recipe,
    weights: StartingWeights,
    text: { negative: Tensor; empty: Tensor },
  ) {
    device.setDeterministic(recipe.train.deterministic);
    this.method = methodOf(recipe);
    this.roles = createRoles(device, recipe, this.method.roles(recipe), weights);
    this.gamma = powerEmaGamma(recipe.ema.length);
    const records = recordsCalls(device, recipe);
    const evaluated = new Map(
      [...this.roles.values()].map((role) => [role, records ? new RecordedNet(role.network) : role.network]),
    );
    this.recorded = [...evaluated.values()].filter((net) => net instanceof RecordedNet);
    const netOf = (role: Role): Net => evaluated.get(role) ?? role.network;
    this.nets = new Nets(this.roles, netOf, recipe.teacher?.guidance ?? 1, text);
  }

  /** Throws: E_INTERNAL when the method has no such role. */
  role(name: RoleName): Role {
    const found = this.roles.get(name);
    if (!found) throw new RcmError("E_INTERNAL", `the method has no ${name}`, { op: "train" });
    return found;
  }

  /** The student for sampling: over its EMA in the model's dtype, or over the trained weights. */
  sampler(kind: WeightKind): Network {
    const { network, ema } = this.role("student");
    return network.withWeights(kind === "ema" && ema ? ema.to(network.params.dtype) : network.params.flat);
  }

  /**
   * One iteration over `accumulate` micro-batches: losses, gradients, optimizer, EMA. On an error nothing is updated.
   * With a `position` it runs that iteration without advancing the counters, for benchmarks and dry runs.
   * Throws: E_NONFINITE naming loss, tensor and step.
   */
  iterate(batches: HostBatch[], position?: Position): StepResult {
    const { recipe, device, method } = this;
    const step = position?.step ?? this.step;
    const role = this.role(method.turn(recipe, step));
    const { optimizer, spec, name } = role;
    if (!optimizer || !spec.optimizer) {
      throw new RcmError("E_INTERNAL", `it is the turn of the ${name}, which is frozen`, { op: "train" });
    }
    const updates = position?.updates ?? optimizer.updates;
    const stats: Record<string, number[]> = {};
    let skipped = 0;
    for (const net of this.recorded) net.reset();
    optimizer.params.zeroGrad();
    batches.forEach((host, micro) => {
      using _scope = device.scope();
      const batch = {
        x0: device.fromHost(host.latents).to(this.activations),
        condition: device.fromHost(host.embeds).to(this.activations),
      };
      const draws = new Draws(recipe.train.seed, step, micro * recipe.train.batch);
      const loss = (compute: (tape: Tape) => LossResult): RecordedLoss => this.record(compute);
      const losses = this.losses({ recipe, step, updates, nets: this.nets, batch, draws, loss }, name);
      for (;;) {
        // Frees this loss's activations before the next loss runs.
        using _loss = device.scope();
        const next = losses.next();
        if (next.done) break;
        const { tape, result } = next.value;
        this.backward(tape, result, batch.x0.shape[0] * batches.length);
        skipped += result.skipped;
        for (const [stat, value] of Object.entries(result.stats)) (stats[stat] ??= []).push(value);
      }
    });
    const gradNorm = optimizer.gradNorm();
    if (!Number.isFinite(gradNorm)) {
      throw new RcmError("E_NONFINITE", `gradient norm of the ${name} is ${gradNorm} at step ${step}`, { op: name });
    }
    const o = spec.optimizer;
    const lr = learningRate(updates, {
      lr: o.lr,
      warmupSteps: o.warmup_steps,
      decaySteps: o.decay_steps,
      lrMin: o.lr_min,
      totalSteps: method.updates(recipe, recipe.train.steps, name),
    });
    optimizer.step(lr, gradNorm, role.ema && { flat: role.ema, beta: this.emaBeta(step, updates) });
    if (!position) {
      this.step++;
      this.skipped += skipped;
    }
    return {
      kind: name,
      stats: Object.fromEntries(Object.entries(stats).map(([k, v]) => [k, mean(v)])),
      gradNorm,
      lr,
      skipped,
    };
  }

  /** GPU milliseconds in recorded evaluations since the last call; null when nothing is recorded. */
  recordedMs(): number | null {
    return this.recorded.length === 0 ? null : this.recorded.reduce((ms, net) => ms + net.replayMs(), 0);
  }

  private get activations(): DType {
    return this.recipe.model.residual as DType;
  }

  private record(compute: (tape: Tape) => LossResult): RecordedLoss {
    const tape = new Tape(this.device, { record: true, checkFinite: this.checkFinite });
    return { tape, result: compute(tape) };
  }

  private *losses(it: Iteration, turn: RoleName): ReturnType<Method["losses"]> {
    try {
      yield* this.method.losses(it, turn);
    } catch (error) {
      if (error instanceof RcmError && error.code === "E_NONFINITE") {
        throw new RcmError("E_NONFINITE", `${error.message} (step ${it.step})`, { op: error.op, cause: error });
      }
      throw error;
    }
  }

  /** Gradient of the mean over the global batch of n samples. */
  private backward(tape: Tape, { loss }: LossResult, n: number): void {
    const rows = loss.x.numel;
    tape.backward(loss, this.device.fromValues(new Float64Array(rows).fill(1 / n), [rows], "f64"));
  }

  private emaBeta(step: number, updates: number): number {
    const { recipe, gamma } = this;
    return powerEmaBeta(gamma, this.method.emaCount(recipe, step, updates) + recipe.ema.shift);
  }
}
