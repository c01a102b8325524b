import type { Condition, Denoiser, VelocityNet } from "../diffusion/predict.ts";
import { RcmError } from "../error.ts";
import type { MeanVelocityNet } from "../losses/meanflow.ts";
import type { Net } from "../models/family.ts";
import { denoiserOf, guidedTeacher, preciseDenoiser, repeated } from "../networks/build.ts";
import { meanVelocityNet, velocityNet } from "../networks/network.ts";
import type { Tensor } from "../tensor.ts";
import type { Role, RoleName } from "./role.ts";

/** The networks of a run as its losses evaluate them. Throws: E_INTERNAL for a role that the method does not have. */
export class Nets {
  private readonly views = new Map<string, unknown>();

  constructor(
    private readonly roles: ReadonlyMap<RoleName, Role>,
    /** The network to evaluate for a role: the network itself or its recorded CUDA graphs. */
    private readonly evaluated: (role: Role) => Net,
    private readonly guidance: number,
    /** Embeddings [1, M, D] of the negative and of the empty prompt. */
    private readonly text: { negative: Tensor; empty: Tensor },
  ) {}

  get empty(): Tensor {
    return this.text.empty;
  }

  /** The negative prompt for B samples. Shapes: -> [B, M, D]. */
  readonly negative = (B: number): Condition => repeated(this.text.negative, B);

  /** F and x0 at TrigFlow times. */
  denoiser(role: RoleName): Denoiser {
    return this.view("denoiser", role, (r) => denoiserOf(this.evaluated(r)));
  }

  /** The denoiser with classifier-free guidance at the recipe's scale. */
  guided(role: RoleName): Denoiser {
    return this.view("guided", role, (r) => guidedTeacher(this.evaluated(r), this.guidance, this.text.negative));
  }

  /** The denoiser in f32-grade arithmetic; null when the network already computes in f32. */
  precise(role: RoleName): Denoiser | null {
    return this.view("precise", role, (r) => preciseDenoiser(r.network));
  }

  velocity(role: RoleName): VelocityNet {
    return this.view("velocity", role, (r) => velocityNet(this.evaluated(r)));
  }

  meanVelocity(role: RoleName): MeanVelocityNet {
    return this.view("mean velocity", role, (r) => meanVelocityNet(this.evaluated(r)));
  }

  private view<T>(kind: string, name: RoleName, make: (role: Role) => T): T {
    const role = this.roles.get(name);
    if (!role) throw new RcmError("E_INTERNAL", `the method has no ${name}`, { op: "train" });
    const key = `${kind} ${name}`;
    if (!this.views.has(key)) this.views.set(key, make(role));
    return this.views.get(key) as T;
  }
}
