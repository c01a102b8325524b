import { RcmError } from "../error.ts";
import { onlyTangent, type Op, type Output } from "../op.ts";
import type { Time } from "../diffusion/predict.ts";
import type { Net } from "../models/family.ts";
import { GraphMemory, type Graph } from "../stream.ts";
import type { Device, Scope, Tensor } from "../tensor.ts";
import { constant, Tape, type Var } from "../tape.ts";
import type { Network } from "./network.ts";

/** Calls of one kind before recording, during which libraries choose their kernels and tables are created. */
const WARMUP_CALLS = 2;

/** One recorded evaluation with its input and output buffers. */
interface Recording {
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
  /** Whether a forward awaits its backward; until then its intermediates must not be overwritten. */
  pending: boolean;
}

interface Call {
  recording: Recording;
  times: readonly Var[];
  context: Tensor;
}

/**
 * A network whose evaluations are captured in CUDA graphs, one for each kind of call, and then replayed. For networks
 * so small that kernel launches would take longer than the kernels.
 */
export class RecordedNet implements Net {
  private readonly seen = new Map<string, { calls: number; recording: Recording | null }>();
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

  /** Bitwise equal to the network's forward. */
  forward(tape: Tape, x: Var, times: readonly Var[], context: Var): Var {
    const direct = (): Var => this.network.forward(tape, x, times, context);
    if (x.node || context.node || context.dot || tape.options.checkFinite) return direct();
    const inputs = [x.x.shape, x.x.dtype, x.dot !== null, times.map((t) => t.dot !== null)];
    const kind = [...inputs, context.x.shape, context.x.dtype, tape.record].join(" ");
    const known = this.seen.get(kind) ?? { calls: 0, recording: null };
    this.seen.set(kind, known);
    if (known.calls++ < WARMUP_CALLS) return direct();
    known.recording ??= this.record(tape, x, times, context.x);
    if (known.recording.pending) return direct();
    // A parameter as input makes the tape call vjp; the recorded backward accumulates its gradient.
    const trained = tape.record ? this.trained : null;
    return tape.run(recordedOp, [x, trained], { recording: known.recording, times, context: context.x });
  }

  /** Forgets forwards whose backward was never run, after an error. */
  reset(): void {
    for (const { recording } of this.seen.values()) {
      if (recording) recording.pending = false;
    }
  }

  /**
   * GPU milliseconds of the replays since the last call, measured by replaying each again on an idle queue.
   * Gradients accumulate what these replays add.
   */
  replayMs(): number {
    let total = 0;
    for (const { recording } of this.seen.values()) {
      if (!recording) continue;
      const { device } = recording.y;
      for (const part of ["forward", "backward"] as const) {
        const graph = recording[part];
        if (graph === null || recording.runs[part] === 0) continue;
        device.sync();
        const began = performance.now();
        for (let i = 0; i < 10; i++) graph.launch();
        device.sync();
        total += (recording.runs[part] * (performance.now() - began)) / 10;
        recording.runs[part] = 0;
      }
    }
    return total;
  }

  private record(outer: Tape, x: Var, times: readonly Var[], context: Tensor): Recording {
    const { device } = outer;
    const trainable = outer.record && this.trained !== null;
    const like = (t: Tensor): Tensor => device.persistent(() => device.empty(t.shape, t.dtype));
    const input = { x: like(x.x), xDot: x.dot && like(x.dot), context: like(context) };
    const timeBuffers = times.map((t) => ({ t: like(t.x), dot: t.dot && like(t.dot) }));
    const memory = new GraphMemory(device);
    const scope = device.scope();
    try {
      const tape = new Tape(device, { ...outer.options, record: trainable });
      let y: Var | null = null;
      const forward = memory.record(() => {
        const times = timeBuffers.map((t) => constant(t.t, t.dot));
        y = this.network.forward(tape, constant(input.x, input.xDot), times, constant(input.context));
      });
      const value = y as unknown as Var;
      const yBar = trainable ? like(value.x) : null;
      const backward = yBar ? memory.record(() => tape.backward(value, yBar)) : null;
      return {
        ...input,
        times: timeBuffers,
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

/** Leaves a scope without freeing its tensors, whose addresses the recording uses. */
function abandon(device: Device, scope: Scope): void {
  scope.owned.clear();
  device.leave(scope);
}

function run({ recording, times, context }: Call, [x, xDot]: [Tensor, Tensor | null]): void {
  recording.x.set(x);
  if (recording.xDot) recording.xDot.set(xDot as Tensor);
  recording.context.set(context);
  times.forEach((time, i) => {
    recording.times[i].t.set(time.x);
    if (time.dot) recording.times[i].dot?.set(time.dot);
  });
  recording.forward.launch();
  recording.runs.forward++;
}

const copyOf = (t: Tensor): Tensor => t.device.empty(t.shape, t.dtype).set(t);

const recordedOp: Op<[x: Tensor, parameter: Tensor | null], Call> = {
  name: "recorded",
  forward([x], call, record): Output<readonly []> {
    run(call, [x, null]);
    call.recording.pending = record && call.recording.backward !== null;
    return { y: copyOf(call.recording.y), saved: [] };
  },
  jvp([x], dots, call, record) {
    run(call, [x, onlyTangent("recorded", dots)]);
    call.recording.pending = record && call.recording.backward !== null;
    return { y: copyOf(call.recording.y), yDot: copyOf(call.recording.yDot as Tensor), saved: [] };
  },
  vjp(_bar, yBar, _x, _y, _saved, { recording }) {
    if (recording.yBar === null || recording.backward === null) {
      throw new RcmError("E_INTERNAL", "was recorded without a backward", { op: "recorded" });
    }
    recording.yBar.set(yBar);
    recording.backward.launch();
    recording.runs.backward++;
    recording.pending = false;
  },
};
