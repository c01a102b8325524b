import { numel, type DType, type HostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { statDType, type Device, type Tensor } from "../tensor.ts";
import { constant, parameter, type Var } from "../tape.ts";
import { streamOf } from "../rng.ts";

/** Initialisation of a parameter; `normal` has the given standard deviation. */
export type Init = { kind: "zeros" } | { kind: "ones" } | { kind: "normal"; std: number };

export interface ParamSpec {
  name: string;
  shape: readonly number[];
  init: Init;
}

/** Parameters by name, as a network reads them. */
export interface ParamSource {
  /** Throws: E_INTERNAL for an unknown name. */
  get(name: string): Var;
  /** Whether a parameter of this name exists. */
  has(name: string): boolean;
}

/** Parameters are aligned to this many elements, so that rows stay aligned and shards can be cut anywhere. */
const ALIGN = 64;

/**
 * The parameters of one network in one flat buffer, with one flat gradient buffer when trainable: optimizer, EMA,
 * gradient norm and sharding are single passes over flat memory.
 */
export class ParamSet implements ParamSource, Disposable {
  readonly flat: Tensor;
  readonly grad: Tensor | null;
  private readonly sharesGrad: boolean;
  private readonly offsets = new Map<string, number>();
  private readonly vars = new Map<string, Var>();
  private readonly byName: ReadonlyMap<string, ParamSpec>;

  private constructor(
    readonly device: Device,
    readonly specs: readonly ParamSpec[],
    readonly dtype: DType,
    { gradients = false, flat = null }: { gradients?: boolean | Tensor; flat?: Tensor | null },
  ) {
    this.byName = new Map(specs.map((spec) => [spec.name, spec]));
    let size = 0;
    for (const { name, shape } of specs) {
      if (this.offsets.has(name)) {
        throw new RcmError("E_INTERNAL", "two parameters of one name", { op: "params", got: name });
      }
      this.offsets.set(name, size);
      size += Math.ceil(numel(shape) / ALIGN) * ALIGN;
    }
    this.flat = flat ?? device.zeros([size], dtype);
    if (this.flat.numel !== size) {
      throw new RcmError("E_SHAPE", "flat buffer of another layout", {
        op: "params",
        want: size,
        got: this.flat.numel,
      });
    }
    this.grad =
      gradients === true ? device.zeros([size], statDType(dtype)) : gradients ? gradients.window(0, [size]) : null;
    this.sharesGrad = typeof gradients !== "boolean";
    for (const spec of specs) {
      const x = this.tensor(spec.name);
      this.vars.set(spec.name, this.grad ? parameter(x, this.window(this.grad, spec.name)) : constant(x));
    }
  }

  /**
   * Allocates zeroed parameters of `dtype`, which live until disposed. `gradients`: whether they are trainable, or the
   * buffer of at least flatSize(specs) elements that their gradients share with other sets.
   */
  static create(device: Device, specs: readonly ParamSpec[], dtype: DType, gradients: boolean | Tensor): ParamSet {
    return device.persistent(() => new ParamSet(device, specs, dtype, { gradients }));
  }

  /** Elements of the flat buffer that holds parameters of these specs. */
  static flatSize(specs: readonly ParamSpec[]): number {
    return specs.reduce((n, { shape }) => n + Math.ceil(numel(shape) / ALIGN) * ALIGN, 0);
  }

  /** Frozen parameters over an existing flat buffer. Throws: E_SHAPE unless it has exactly flatSize(specs) elements. */
  static view(device: Device, specs: readonly ParamSpec[], flat: Tensor): ParamSet {
    return new ParamSet(device, specs, flat.dtype, { flat });
  }

  /** Frozen parameters over an existing flat buffer of the same layout (for example EMA weights). */
  over(flat: Tensor): ParamSet {
    return new ParamSet(this.device, this.specs, flat.dtype, { flat });
  }

  get names(): string[] {
    return this.specs.map((s) => s.name);
  }
  get count(): number {
    return this.specs.reduce((n, s) => n + numel(s.shape), 0);
  }

  spec(name: string): ParamSpec {
    const spec = this.byName.get(name);
    if (!spec) throw new RcmError("E_INTERNAL", "no such parameter", { op: "params", got: name });
    return spec;
  }

  /** The window of a flat buffer of this layout that belongs to a parameter. */
  window(flat: Tensor, name: string): Tensor {
    const offset = this.offsets.get(name);
    if (offset === undefined) throw new RcmError("E_INTERNAL", "no such parameter", { op: "params", got: name });
    return flat.window(offset, this.spec(name).shape);
  }

  tensor(name: string): Tensor {
    return this.window(this.flat, name);
  }

  get(name: string): Var {
    const v = this.vars.get(name);
    if (!v) throw new RcmError("E_INTERNAL", "no such parameter", { op: "params", got: name });
    return v;
  }

  /** Initialises every parameter from its spec; values depend only on the seed and the position in the list. */
  init(seed: number): void {
    this.specs.forEach((spec, i) => {
      const t = this.tensor(spec.name);
      if (spec.init.kind === "normal") {
        using _scope = this.device.scope();
        const noise = this.device.randn(spec.shape, t.dtype, seed, streamOf({ use: "init", sample: i }));
        t.zero().axpy(noise, spec.init.std);
      } else t.fill(spec.init.kind === "ones" ? 1 : 0);
    });
  }

  /** Loads values by name. Throws: E_STATE naming missing and unexpected keys, E_SHAPE. */
  load(from: ReadonlyMap<string, HostTensor>, what: string): void {
    const missing = this.names.filter((n) => !from.has(n));
    const known = new Set(this.names);
    const unexpected = [...from.keys()].filter((n) => !known.has(n));
    if (missing.length > 0 || unexpected.length > 0) {
      const list = (names: string[]): string =>
        names.length === 0
          ? "none"
          : `${names.slice(0, 5).join(", ")}${names.length > 5 ? ` and ${names.length - 5} more` : ""}`;
      throw new RcmError(
        "E_STATE",
        `parameter names do not fit: missing ${list(missing)}; unexpected ${list(unexpected)}`,
        { op: what },
      );
    }
    for (const [name, host] of from) {
      const t = this.tensor(name);
      const flatShape =
        host.shape.length > 2 && t.shape.length === 2 ? [host.shape[0], numel(host.shape.slice(1))] : host.shape;
      if (flatShape.length !== t.shape.length || flatShape.some((d, i) => d !== t.shape[i])) {
        throw new RcmError("E_SHAPE", `${name} has the wrong shape`, { op: what, want: t.shape, got: host.shape });
      }
      t.setHost(host);
    }
  }

  /** Yields values on the host in `dtype`, read from `flat` (by default the parameters). */
  *entries(flat: Tensor = this.flat, dtype: DType = flat.dtype): Generator<[string, HostTensor]> {
    for (const { name } of this.specs) {
      using _scope = this.device.scope();
      yield [name, this.window(flat, name).to(dtype).toHost()];
    }
  }

  has(name: string): boolean {
    return this.vars.has(name);
  }

  zeroGrad(): void {
    this.grad?.zero();
  }

  /** Frees the weights, and the gradients unless they are shared. */
  [Symbol.dispose](): void {
    this.flat.free();
    if (!this.sharesGrad) this.grad?.free();
  }
}
