import { hostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import type { Op, Output } from "../op.ts";
import type { NetTime, WanModel } from "../models/wan/model.ts";
import type { Device, Scope, Tensor } from "../tensor.ts";
import { constant, Tape, type Var } from "../tape.ts";

/** Calls of one kind that run one by one before they are recorded: libraries choose their kernels, tables are made. */
const FIRST = 2;

/** One recorded evaluation: where its inputs go, where its outputs are. */
interface Plan {
  x: Tensor;
  xDot: Tensor | null;
  /** Each time and its tangent, [2, B] f64. */
  held: Tensor[];
  context: Tensor;
  y: Tensor;
  yDot: Tensor | null;
  yBar: Tensor | null;
  forward: number;
  backward: number | null;
  /** Launches so far. */
  runs: { forward: number; backward: number };
  /** The tape that ran forward and not yet backward: until then its intermediates must stay. */
  pending: boolean;
}

interface Call {
  plan: Plan;
  times: NetTime[];
  context: Tensor;
}

/** A network whose evaluations are recorded once per kind and then launched as one: for networks too small to fill a GPU's queue. */
export class RecordedModel {
  private readonly seen = new Map<string, { calls: number; plan: Plan | null }>();

  constructor(readonly model: WanModel) {}

  get config(): WanModel["config"] {
    return this.model.config;
  }

  /** As WanModel.forward, with the same bits. */
  forward(tape: Tape, x: Var, time: NetTime, context: Var, second: NetTime | null = null): Var {
    const direct = (): Var => this.model.forward(tape, x, time, context, second);
    if (x.node || context.node || context.dot || tape.options.checkFinite) return direct();
    const times = second ? [time, second] : [time];
    const kind = [x.x.shape, x.x.dtype, x.dot !== null, times.map((t) => t.dot !== null), context.x.shape, context.x.dtype, tape.record].join(" ");
    const known = this.seen.get(kind) ?? { calls: 0, plan: null };
    this.seen.set(kind, known);
    if (known.calls++ < FIRST) return direct();
    known.plan ??= this.record(tape, x, times, context.x);
    if (known.plan.pending) return direct();
    // A parameter among the inputs makes the tape ask for a backward; its gradient is added by the recording itself.
    const some = tape.record && this.model.options.trainable ? this.model.params.get(this.model.params.names[0]) : null;
    return tape.run(recordedOp, [x, some], { plan: known.plan, times, context: context.x });
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
      const { lib } = plan.y.device;
      for (const part of ["forward", "backward"] as const) {
        const graph = plan[part];
        if (graph === null || plan.runs[part] === 0) continue;
        lib.sync();
        const began = performance.now();
        for (let i = 0; i < 10; i++) lib.graphLaunch(graph);
        lib.sync();
        total += (plan.runs[part] * (performance.now() - began)) / 10;
        plan.runs[part] = 0;
      }
    }
    return total;
  }

  private record(outer: Tape, x: Var, times: NetTime[], context: Tensor): Plan {
    const { device } = outer;
    const { lib } = device;
    const trainable = outer.record && this.model.options.trainable;
    const like = (t: Tensor): Tensor => device.persistent(() => device.empty(t.shape, t.dtype));
    const input = { x: like(x.x), xDot: x.dot && like(x.dot), context: like(context) };
    const held = times.map((t) => device.persistent(() => device.zeros([2, t.t.length], "f64")));
    const parts = times.map((t, i): NetTime => ({ ...t, held: { t: held[i].window(0, [t.t.length]), dot: t.dot && held[i].window(t.t.length, [t.t.length]) } }));
    const out = new BigInt64Array(new ArrayBuffer(8));
    lib.graphMemory(out);
    const memory = Number(out[0]);
    const part = (body: () => void): number => {
      lib.graphBegin(memory);
      try {
        body();
      } finally {
        lib.graphEnd(out);
      }
      return Number(out[0]);
    };
    const scope = device.scope();
    try {
      const tape = new Tape(device, { ...outer.options, record: trainable });
      let y: Var | null = null;
      const forward = part(() => {
        y = this.model.forward(tape, constant(input.x, input.xDot), parts[0], constant(input.context), parts[1] ?? null);
      });
      const value = y as unknown as Var;
      const yBar = trainable ? like(value.x) : null;
      const backward = yBar ? part(() => tape.backward(value, yBar)) : null;
      return { ...input, held, y: value.x, yDot: value.dot, yBar, forward, backward, runs: { forward: 0, backward: 0 }, pending: false };
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
  const { device } = plan.y;
  plan.x.set(x);
  if (plan.xDot) plan.xDot.set(xDot as Tensor);
  plan.context.set(context);
  times.forEach((time, i) => {
    plan.held[i].setHost(hostTensor("f64", [2, time.t.length], [...time.t, ...(time.dot ?? time.t)]));
  });
  device.lib.graphLaunch(plan.forward);
  plan.runs.forward++;
}

const copyOf = (t: Tensor): Tensor => t.device.empty(t.shape, t.dtype).set(t);

const recordedOp: Op<Call> = {
  name: "recorded",
  forward([x], call, record): Output {
    run(call, [x as Tensor, null]);
    call.plan.pending = record && call.plan.backward !== null;
    return { y: copyOf(call.plan.y), own: [] };
  },
  jvp([x], [xDot], call, record) {
    run(call, [x as Tensor, xDot]);
    call.plan.pending = record && call.plan.backward !== null;
    return { y: copyOf(call.plan.y), yDot: copyOf(call.plan.yDot as Tensor), own: [] };
  },
  vjp(_bar, yBar, _x, _y, _own, { plan }) {
    if (plan.yBar === null || plan.backward === null) throw new RcmError("E_INTERNAL", "was recorded without a backward", { op: "recorded" });
    plan.yBar.set(yBar);
    yBar.device.lib.graphLaunch(plan.backward);
    plan.runs.backward++;
    plan.pending = false;
  },
};
