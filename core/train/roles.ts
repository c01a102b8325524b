import { RcmError } from "../error.ts";
import { copyWeights, FROM_TEACHER, loadWeights, netOptions, recipeNet, type WeightSource } from "../networks/build.ts";
import { Network } from "../networks/network.ts";
import { ParamSet } from "../nn/params.ts";
import type { Recipe } from "../recipe/schema.ts";
import { statDType, type Device } from "../tensor.ts";
import type { LoadOptions } from "../weights/fit.ts";
import { Role, type RoleName, type Roles, type RoleSpec } from "./role.ts";

export interface StartingWeights {
  teacher: WeightSource | null;
  /** FROM_TEACHER: copied from the teacher on the device. Null: randomly initialized. */
  student: typeof FROM_TEACHER | WeightSource | null;
  options?: LoadOptions;
}

/**
 * Creates the networks of a method with their starting weights. All trained roles share one gradient buffer, since an
 * iteration trains one of them. Throws: E_IO, E_FORMAT, E_STATE for weights that do not fit.
 */
export function createRoles(
  device: Device,
  recipe: Recipe,
  specs: Roles,
  weights: StartingWeights,
): Map<RoleName, Role> {
  const options = netOptions(recipe);
  const nets = (Object.entries(specs) as [RoleName, RoleSpec][]).map(([name, spec]) => ({
    name,
    spec,
    net: recipeNet(recipe, spec.secondTime),
  }));
  const trained = nets.filter(({ spec }) => spec.optimizer !== null);
  const sizes = trained.map(({ net }) => ParamSet.flatSize(net.family.params(net.config)));
  const gradients = device.persistent(() => device.zeros([Math.max(0, ...sizes)], statDType(options.dtype)));
  const roles = new Map<RoleName, Role>();
  const teacher = (): ParamSet => {
    const found = roles.get("teacher");
    if (!found) throw new RcmError("E_INTERNAL", "a copy of the teacher without a teacher", { op: "train" });
    return found.network.params;
  };
  for (const { name, spec, net } of nets) {
    const network = Network.create(device, net, options, spec.optimizer ? gradients : false);
    const source = name === "teacher" ? weights.teacher : weights.student;
    if (spec.optimizer && spec.start === "given") network.params.init(recipe.train.seed);
    if (spec.start === "teacher" || source === FROM_TEACHER) {
      if (roles.has("teacher") || source === FROM_TEACHER) copyWeights(teacher(), network.params);
    } else if (source) {
      loadWeights(network, source, name, weights.options);
    }
    roles.set(name, new Role(name, spec, network));
  }
  return roles;
}
