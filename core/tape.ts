import { dtypeCode } from "./dtype.ts";
import { RcmError } from "./error.ts";
import { onlyTangent, type AnyOp, type Cotangents, type Inputs, type Op, type Output, type Tangents } from "./op.ts";
import { expectLike, sampleReduce, statDType, type Device, type Storage, type Tensor } from "./tensor.ts";

/** A node of the graph, where cotangents accumulate: a leaf (parameter or differentiated input) or a recorded op. */
export class Node {
  /** Cotangent of the output while backward runs. */
  bar: Tensor | null = null;
  readonly op: AnyOp | null;
  readonly inputs: readonly (Var | null)[];
  readonly p: unknown;
  readonly y: Tensor;
  readonly saved: readonly Tensor[];
  /** Gradient buffer of a parameter: backward adds to it and never frees it. */
  readonly grad: Tensor | null;

  constructor(recorded: Pick<Node, "op" | "inputs" | "p" | "y" | "saved">, grad: Tensor | null = null) {
    this.op = recorded.op;
    this.inputs = recorded.inputs;
    this.p = recorded.p;
    this.y = recorded.y;
    this.saved = recorded.saved;
    this.grad = grad;
  }
}

/** The node of an input to differentiate by or, with its gradient buffer, of a parameter. */
export const leafNode = (y: Tensor, grad: Tensor | null = null): Node =>
  new Node({ op: null, inputs: [], p: null, y, saved: [] }, grad);

/**
 * A value on the tape. `dot` is its forward-mode tangent: a plain Tensor, so no gradient can flow through it (this type
 * enforces the stop-gradient of sCM); null is a symbolic zero. `node` is null for constants.
 */
export interface Var {
  readonly x: Tensor;
  readonly dot: Tensor | null;
  readonly node: Node | null;
}

export const constant = (x: Tensor, dot: Tensor | null = null): Var => ({ x, dot, node: null });

/** An input to differentiate by: its cotangent is in `node.bar` after backward. */
export const leaf = (x: Tensor, dot: Tensor | null = null): Var => ({ x, dot, node: leafNode(x) });

/** A parameter: backward adds to `grad`. */
export const parameter = (x: Tensor, grad: Tensor): Var => ({
  x, dot: null, node: leafNode(x, grad),
});

/**
 * Activation checkpointing of a block. Kept for backward: everything, nothing, attention outputs, or these and matmul
 * outputs.
 */
export const CHECKPOINT_MODES = ["none", "block", "attention", "matmul"] as const;
export type CheckpointMode = (typeof CHECKPOINT_MODES)[number];

/** The output of a costly op that a checkpointed block keeps. */
type Kept = Output;

/** Values for the inputs I of an op. */
export type Vars<I extends Inputs> = { readonly [K in keyof I]: I[K] extends Tensor ? Var : Var | null };

export interface TapeOptions {
  /** False: inference; nothing is recorded and blocks free their intermediates. */
  record: boolean;
  /** Check every op's output for NaN and infinity (slow); the error names the op. */
  checkFinite?: boolean;
}

/** Runs ops (primal, tangent and recording in one pass), then backward over the recorded graph. */
export class Tape {
  private nodes: Node[] = [];
  private refs = new Map<Storage, number>();
  private store: Kept[] | null = null;
  private replay: Kept[] | null = null;
  private mode: CheckpointMode = "none";

  constructor(
    readonly device: Device,
    readonly options: TapeOptions,
  ) {}

  get record(): boolean {
    return this.options.record;
  }

  /**
   * Applies an op. It computes a tangent if any input has one, and records if any input has a node.
   * Throws: E_SHAPE, E_DTYPE for a wrong input, or a tangent that does not match its primal.
   */
  run<I extends Inputs, P, S extends readonly Tensor[]>(op: Op<I, P, S>, inputs: Vars<I>, p: P): Var {
    const vars: readonly (Var | null)[] = inputs;
    const x = primals<I>(vars);
    const xDot = tangents<I>(op.name, vars);
    const wantsGrad = this.record && vars.some((v) => v !== null && v.node !== null);
    const saves = wantsGrad || this.store !== null;
    const keeps = op.costly && (this.mode === "matmul" || this.mode === op.costly);
    const kept = keeps && this.replay ? this.replay.shift() : undefined;
    const out: Output & { yDot?: Tensor } = kept ?? (xDot ? op.jvp(x, xDot, p, saves) : op.forward(x, p, saves));
    if (keeps && this.store) this.store.push({ y: out.y, saved: out.saved });
    if (this.options.checkFinite) this.expectFinite(op.name, out);
    const node = wantsGrad ? new Node({ op, inputs: vars, p, y: out.y, saved: out.saved }) : null;
    if (node) this.nodes.push(node);
    return { x: out.y, dot: out.yDot ?? null, node };
  }

  /** The same value under another shape, without a copy. */
  reshape(v: Var, shape: readonly number[]): Var {
    return this.run(reshapeOp, [v], { shape });
  }

  /** Detaches a value: neither gradient nor tangent flows through it. */
  stop(v: Var): Var {
    return constant(v.x);
  }

  /**
   * Runs a block of the network with activation checkpointing. "none" is a plain call. "block" keeps only the block's
   * inputs and recomputes the primal (never the tangent) in backward; "attention" also keeps attention outputs,
   * "matmul" these and matmul outputs. Without recording, the block's intermediates are freed when it ends.
   */
  block(mode: CheckpointMode, body: (tape: Tape, inputs: Var[]) => Var, inputs: Var[]): Var {
    if (this.record && mode === "none") return body(this, inputs);
    const { device } = this;
    const inner = new Tape(device, { ...this.options, record: false });
    inner.mode = mode;
    if (this.record && mode !== "block") inner.store = [];
    const scope = device.scope();
    let y: Tensor;
    let dot: Tensor | null;
    try {
      const out = body(inner, inputs.map((v) => constant(v.x, v.dot)));
      y = scope.keep(out.x);
      dot = scope.keep(out.dot);
      for (const kept of inner.store ?? []) {
        scope.keep(kept.y);
        kept.saved.forEach((t) => scope.keep(t));
      }
    } finally {
      scope[Symbol.dispose]();
    }
    if (!this.record) return constant(y, dot);
    const p: CheckpointParams = { tape: this, body, mode, kept: inner.store };
    const node = new Node({ op: checkpointOp, inputs, p, y, saved: [] });
    this.nodes.push(node);
    return { x: y, dot, node };
  }

  /** Propagates a cotangent from `y` to every leaf, accumulating into the parameters' gradients. Clears the tape. */
  backward(y: Var, yBar: Tensor): void {
    if (y.node === null) throw new RcmError("E_INTERNAL", "the value was not recorded", { op: "backward" });
    this.retain(yBar); // the caller's reference: not freed here
    this.add(y.node, yBar);
    const nodes = this.nodes;
    this.nodes = [];
    for (let i = nodes.length - 1; i >= 0; i--) {
      const node = nodes[i];
      const bar = node.bar;
      if (bar === null || node.op === null) continue;
      const x = node.inputs.map((v) => v?.x ?? null);
      node.op.vjp(this.cotangents(node), bar, x, node.y, node.saved, node.p);
      node.bar = null;
      this.release(bar);
    }
    this.refs.clear();
  }

  private cotangents(node: Node): Cotangents {
    const target = (i: number): Node => {
      const input = node.inputs[i];
      if (input?.node) return input.node;
      throw new RcmError("E_INTERNAL", `input ${i} wants no cotangent`, { op: node.op?.name ?? "leaf" });
    };
    return {
      need: (i) => Boolean(node.inputs[i]?.node),
      put: (i, t) => this.add(target(i), t),
      accumulate: (i) => {
        const into = target(i);
        if (into.grad) return into.grad;
        const x = (node.inputs[i] as Var).x;
        if (into.bar === null) this.add(into, this.device.zeros(x.shape, statDType(x.dtype)));
        else this.unshare(into);
        return into.bar as unknown as Tensor;
      },
    };
  }

  private add(into: Node, bar: Tensor): void {
    if (into.grad) {
      into.grad.axpy(bar);
      if (!this.refs.has(bar.storage)) bar.free();
      return;
    }
    if (into.bar === null) {
      into.bar = bar;
      this.retain(bar);
      return;
    }
    this.unshare(into);
    into.bar.axpy(bar);
    if (!this.refs.has(bar.storage)) bar.free();
  }

  /** Copies a node's cotangent if its memory is shared, so that it can be added to in place. */
  private unshare(node: Node): void {
    const bar = node.bar as Tensor;
    if ((this.refs.get(bar.storage) ?? 0) <= 1) return;
    const copy = this.device.empty(bar.shape, bar.dtype).set(bar);
    this.release(bar);
    node.bar = copy;
    this.retain(copy);
  }

  private retain(t: Tensor): void {
    this.refs.set(t.storage, (this.refs.get(t.storage) ?? 0) + 1);
  }

  private release(t: Tensor): void {
    const left = (this.refs.get(t.storage) ?? 1) - 1;
    if (left > 0) this.refs.set(t.storage, left);
    else {
      this.refs.delete(t.storage);
      t.free();
    }
  }

  private expectFinite(op: string, out: Output & { yDot?: Tensor }): void {
    for (const [name, t] of [["y", out.y], ["yDot", out.yDot]] as const) {
      if (!t || dtypeCode(t.dtype) > 3) continue;
      const bad = sampleReduce(t.view([1, t.numel]), "nonfinite")[0];
      if (bad === 0) continue;
      throw new RcmError("E_NONFINITE", `${name} holds ${bad} values that are not finite`, { op, got: t.shape });
    }
  }

  /** Recomputes a checkpointed block while recording, and runs its backward. */
  static recompute(block: CheckpointParams, x: readonly Tensor[], need: boolean[], yBar: Tensor): (Tensor | null)[] {
    const { tape: outer, body, mode, kept } = block;
    const { device } = outer;
    const scope = device.scope();
    try {
      const tape = new Tape(device, { ...outer.options, record: true });
      tape.mode = mode;
      if (kept) tape.replay = [...kept];
      const inputs = x.map((t, i) => (need[i] ? leaf(t) : constant(t)));
      const y = body(tape, inputs);
      if (y.node !== null) tape.backward(y, yBar);
      return inputs.map((v) => scope.keep(v.node?.bar ?? null));
    } finally {
      scope[Symbol.dispose]();
    }
  }
}

/** Values of an op's inputs; `vars` has the tuple's length, and null for the same inputs. */
const primals = <I extends Inputs>(vars: readonly (Var | null)[]): I => vars.map((v) => v?.x ?? null) as unknown as I;

/** Tangents of an op's inputs; null when none has one. Throws: E_SHAPE, E_DTYPE when one does not match its primal. */
function tangents<I extends Inputs>(op: string, vars: readonly (Var | null)[]): Tangents<I> | null {
  let any = false;
  for (const [i, v] of vars.entries()) {
    if (!v?.dot) continue;
    expectLike(op, `tangent ${i}`, v.dot, v.x);
    any = true;
  }
  return any ? (vars.map((v) => v?.dot ?? null) as Tangents<I>) : null;
}

const reshapeOp: Op<[x: Tensor], { shape: readonly number[] }> = {
  name: "reshape",
  forward: ([x], { shape }) => ({ y: x.view(shape), saved: [] }),
  jvp: ([x], dots, { shape }) => ({ y: x.view(shape), yDot: onlyTangent("reshape", dots).view(shape), saved: [] }),
  vjp: (bar, yBar, [x]) => bar.put(0, yBar.view(x.shape)),
};

interface CheckpointParams {
  tape: Tape;
  body: (tape: Tape, inputs: Var[]) => Var;
  mode: CheckpointMode;
  kept: Kept[] | null;
}

const checkpointOp: Op<readonly Tensor[], CheckpointParams> = {
  name: "checkpoint",
  forward: () => {
    throw new RcmError("E_INTERNAL", "recorded by Tape.block only", { op: "checkpoint" });
  },
  jvp: () => {
    throw new RcmError("E_INTERNAL", "recorded by Tape.block only", { op: "checkpoint" });
  },
  vjp: (bar, yBar, x, y, _saved, p) => {
    const need = x.map((_, i) => bar.need(i));
    const bars = Tape.recompute(p, x, need, yBar);
    bars.forEach((t, i) => t && bar.put(i, t));
    for (const one of p.kept ?? []) for (const t of [one.y, ...one.saved]) if (t.storage !== y.storage) t.free();
  },
};
