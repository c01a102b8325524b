import type { Network } from "../networks/network.ts";
import { AdamW } from "../optim/adamw.ts";
import type { OptimizerRecipe } from "../recipe/schema.ts";
import type { Tensor } from "../tensor.ts";

/** The networks that a method may use. A new role is a name here and an entry in a method's `roles`. */
export type RoleName = "teacher" | "student" | "critic";

export interface RoleSpec {
  /** Null: frozen. */
  optimizer: OptimizerRecipe | null;
  /** "given": the recipe names its weights; "teacher": it starts as a copy of the teacher. */
  start: "given" | "teacher";
  /** Whether an EMA of its weights is kept, for sampling. */
  ema: boolean;
  /** Whether it is conditioned on MeanFlow's second time. */
  secondTime: boolean;
}

export type Roles = Partial<Record<RoleName, RoleSpec>>;

export const frozen = (): RoleSpec => ({ optimizer: null, start: "given", ema: false, secondTime: false });
export const trained = (optimizer: OptimizerRecipe, o: Partial<RoleSpec> = {}): RoleSpec => ({
  optimizer,
  start: "given",
  ema: false,
  secondTime: false,
  ...o,
});

/** One flat buffer of a role. */
export interface RoleBuffer {
  /** `weights`, `master`, `m`, `v` or `ema`: its name in checkpoints. */
  state: string;
  title: string;
  tensor: Tensor;
  /** Whether a bitwise resume needs it; rounded weights follow from their master weights. */
  saved: boolean;
}

/** A network of a training run: its weights and, when it is trained, its optimizer and EMA. */
export class Role {
  readonly optimizer: AdamW | null;
  /** f32 EMA of the weights, flat. */
  readonly ema: Tensor | null;

  constructor(
    readonly name: RoleName,
    readonly spec: RoleSpec,
    readonly network: Network,
  ) {
    const { params } = network;
    const o = spec.optimizer;
    this.optimizer = o && new AdamW(params, {
      betas: o.betas,
      eps: o.eps,
      weightDecay: o.weight_decay,
      maxGradNorm: o.max_grad_norm,
    });
    const { optimizer } = this;
    this.ema = spec.ema && optimizer
      ? params.device.persistent(() => params.device.empty(params.flat.shape, "f32").set(optimizer.values))
      : null;
  }

  /** Optimizer updates made. */
  get updates(): number {
    return this.optimizer?.updates ?? 0;
  }

  /** Every buffer of the role except the gradients, which roles share. */
  buffers(): RoleBuffer[] {
    const { optimizer: opt, network } = this;
    const list: [state: string, title: string, tensor: Tensor | null | undefined, saved: boolean][] = [
      ["weights", "weights", network.params.flat, opt !== null && opt.master === null],
      ["master", "masters", opt?.master, true],
      ["m", "first moments", opt?.m, true],
      ["v", "second moments", opt?.v, true],
      ["ema", "EMA", this.ema, true],
    ];
    return list.flatMap(([state, title, tensor, saved]) => (tensor ? [{ state, title, tensor, saved }] : []));
  }
}
