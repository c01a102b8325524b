import { RcmError } from "../error.ts";
import { onlyTangent, type Op, type Output } from "../op.ts";
import type { Time } from "../diffusion/predict.ts";
import type { Net } from "../models/family.ts";
import { GraphMemory, type Graph } from "../stream.ts";
import type { Device, Scope, Tensor } from "../tensor.ts";
import { constant, Tape, type Var } from "../tape.ts";
import type { Network } from "./network.ts";

/** Calls of one kind that run one by one before they are recorded: libraries choose their kernels, tables are made. */
const FIRST = 2;

/** One recorded evaluation: where its inputs go, where its outputs are. */
interface Plan {
  x: Tensor;
  xDot: Tensor | null;
  times: { t: Tensor; dot: Tensor | null }[];
  context: Tensor;
  y: Tensor;
  yDot: Tensor | null;
  yBar: Tensor | null;
  forward: Graph;
  backward: Graph | null;
  /** Launches so far. */
  runs: { forward: number; backward: number };
  /** The tape that ran forward and not yet backward: until then its intermediates must stay. */
  pending: boolean;
}

interface Call {
  plan: Plan;
  times: readonly Var[];
  context: Tensor;
}

/** A network whose evaluations are recorded once per kind and then launched as one: for networks too small to fill a GPU's queue. */
export class RecordedNet implements Net {
  private readonly seen = new Map<string, { calls: number; plan: Plan | null }>();
  /** Any trained parameter; null for a frozen network. */
  private readonly trained: Var | null;

  constructor(readonly network: Network) {
    const { params } = network;
    this.trained = params.grad ? params.get(params.names[0]) : null;
  }

  get config(): Net["config"] {
    return this.network.config;
  }
  get options(): Net["options"] {
    return this.network.options;
  }
  netTime(tRf: Time): Time {
    return this.network.netTime(tRf);
  }

  /** As the network's own, with the same bits. */
  forward(tape: Tape, x: Var, times: readonly Var[], context: Var): Var {
    const direct = (): Var => this.network.forward(tape, x, times, context);
    if (x.node || context.node || context.dot || tape.options.checkFinite) return direct();
    const kind = [
      x.x.shape,
      x.x.dtype,
      x.dot !== null,
      times.map((t) => t.dot !== null),
      context.x.shape,
      context.x.dtype,
      tape.record,
    ].join(" ");
    const known = this.seen.get(kind) ?? { calls: 0, plan: null };
    this.seen.set(kind, known);
    if (known.calls++ < FIRST) return direct();
    known.plan ??= this.record(tape, x, times, context.x);
    if (known.plan.pending) return direct();
    // A parameter among the inputs makes the tape ask for a backward; its gradient is added by the recording itself.
    const trained = tape.record ? this.trained : null;
    return tape.run(recordedOp, [x, trained], { plan: known.plan, times, context: context.x });
  }

  /** What a backward that never came left behind. */
  reset(): void {
    for (const { plan } of this.seen.values()) if (plan) plan.pending = false;
  }

  /**
   * Milliseconds that the launches since the last call take when nothing but they is queued, so the GPU's own time; measured by
   * launching each again. Gradients are left with what that adds to them.
   */
  replayMs(): number {
    let total = 0;
    for (const { plan } of this.seen.values()) {
      if (!plan) continue;
      const { device } = plan.y;
      for (const part of ["forward", "backward"] as const) {
        const graph = plan[part];
        if (graph === null || plan.runs[part] === 0) continue;
        device.sync();
        const began = performance.now();
        for (let i = 0; i < 10; i++) graph.launch();
        device.sync();
        total += (plan.runs[part] * (performance.now() - began)) / 10;
        plan.runs[part] = 0;
      }
    }
    return total;
  }

  private record(outer: Tape, x: Var, times: readonly Var[], context: Tensor): Plan {
    const { device } = outer;
    const trainable = outer.record && this.trained !== null;
    const like = (t: Tensor): Tensor => device.persistent(() => device.empty(t.shape, t.dtype));
    const input = { x: like(x.x), xDot: x.dot && like(x.dot), context: like(context) };
    const held = times.map((t) => ({ t: like(t.x), dot: t.dot && like(t.dot) }));
    const memory = new GraphMemory(device);
    const scope = device.scope();
    try {
      const tape = new Tape(device, { ...outer.options, record: trainable });
      let y: Var | null = null;
      const forward = memory.record(() => {
        y = this.network.forward(
          tape,
          constant(input.x, input.xDot),
          held.map((t) => constant(t.t, t.dot)),
          constant(input.context),
        );
      });
      const value = y as unknown as Var;
      const yBar = trainable ? like(value.x) : null;
      const backward = yBar ? memory.record(() => tape.backward(value, yBar)) : null;
      return {
        ...input,
        times: held,
        y: value.x,
        yDot: value.dot,
        yBar,
        forward,
        backward,
        runs: { forward: 0, backward: 0 },
        pending: false,
      };
    } finally {
      abandon(device, scope);
    }
  }
}

/** Leaves a scope without freeing: what was recorded stays where it was recorded. */
function abandon(device: Device, scope: Scope): void {
  scope.owned.clear();
  device.leave(scope);
}

function run({ plan, times, context }: Call, [x, xDot]: [Tensor, Tensor | null]): void {
  plan.x.set(x);
  if (plan.xDot) plan.xDot.set(xDot as Tensor);
  plan.context.set(context);
  times.forEach((time, i) => {
    plan.times[i].t.set(time.x);
    if (time.dot) plan.times[i].dot?.set(time.dot);
  });
  plan.forward.launch();
  plan.runs.forward++;
}

const copyOf = (t: Tensor): Tensor => t.device.empty(t.shape, t.dtype).set(t);

const recordedOp: Op<[x: Tensor, parameter: Tensor | null], Call> = {
  name: "recorded",
  forward([x], call, record): Output<readonly []> {
    run(call, [x, null]);
    call.plan.pending = record && call.plan.backward !== null;
    return { y: copyOf(call.plan.y), saved: [] };
  },
  jvp([x], dots, call, record) {
    run(call, [x, onlyTangent("recorded", dots)]);
    call.plan.pending = record && call.plan.backward !== null;
    return { y: copyOf(call.plan.y), yDot: copyOf(call.plan.yDot as Tensor), saved: [] };
  },
  vjp(_bar, yBar, _x, _y, _saved, { plan }) {
    if (plan.yBar === null || plan.backward === null) {
      throw new RcmError("E_INTERNAL", "was recorded without a backward", { op: "recorded" });
    }
    plan.yBar.set(yBar);
    plan.backward.launch();
    plan.runs.backward++;
    plan.pending = false;
  },
};
