import { guided, trigDenoiser, type Condition, type Denoiser } from "../diffusion/predict.ts";
import type { DType, HostTensor } from "../dtype.ts";
import { presetNet } from "../models/families.ts";
import { netSpec, type Net, type NetOptions, type NetSpec } from "../models/family.ts";
import type { ParamSet } from "../nn/params.ts";
import type { Recipe } from "../recipe/schema.ts";
import type { Device, Tensor } from "../tensor.ts";
import { loadNetwork, type LoadOptions, type LoadReport } from "../weights/fit.ts";
import { Network, velocityNet } from "./network.ts";

/** The network of a recipe: the preset with the recipe's own sizes. */
export function recipeNet({ model }: Pick<Recipe, "model">, secondTime = false): NetSpec {
  const { family, config } = presetNet(model.preset);
  const sized = family.resize(config, {
    dim: model.dim,
    heads: model.heads,
    layers: model.layers,
    ffnDim: model.ffn_dim,
  });
  return netSpec(family, { ...sized, secondTime });
}

/** Whether a recipe's student takes MeanFlow's second time. */
export const wantsSecondTime = (recipe: Recipe): boolean => recipe.objective.consistency?.kind === "meanflow";

/** Storage, checkpointing and time rounding of a recipe's networks. */
export const netOptions = ({ model }: Recipe): NetOptions => ({
  dtype: model.dtype as DType,
  residual: model.residual as DType,
  checkpoint: model.checkpoint,
  time: model.time,
});

export const createNetwork = (
  device: Device,
  recipe: Recipe,
  role: { trainable: boolean; secondTime: boolean },
): Network => Network.create(device, recipeNet(recipe, role.secondTime), netOptions(recipe), role.trainable);

/** Weights on the host by their names, a path that is streamed (any format, see core/weights), or what fills the parameters itself. */
export type WeightSource = ReadonlyMap<string, HostTensor> | string | ((params: ParamSet) => void);

/** A student that starts as the teacher, whose weights are copied on the device. */
export const FROM_TEACHER = Symbol("from teacher");

/** Loads weights; parameters that a checkpoint may lack keep the values that the network has. */
export function loadWeights(
  network: Network,
  weights: WeightSource,
  what: string,
  options: LoadOptions = {},
): LoadReport | null {
  const { params, spec } = network;
  if (typeof weights === "string") return loadNetwork(params, weights, options);
  if (typeof weights === "function") {
    weights(params);
    return null;
  }
  const all = new Map(weights);
  for (const { name } of params.specs) {
    if (spec.family.optional(name) && !all.has(name)) all.set(name, params.tensor(name).toHost());
  }
  network.load(all, what);
  return null;
}

/** Copies every parameter that two networks share, on the device; what only `to` has stays as it is. */
export function copyWeights(from: ParamSet, to: ParamSet): void {
  if (from.specs.length === to.specs.length) to.flat.set(from.flat);
  else for (const name of from.names) to.tensor(name).set(from.tensor(name));
}

export const denoiserOf = (net: Net): Denoiser => trigDenoiser(velocityNet(net));

/**
 * The network with f32-grade arithmetic, for tangents: activations are f32 whatever the storage of the weights, and products of f32
 * split their factors in two bf16 (rcm_f32_products). Null where the network computes in f32 or f64 anyway.
 */
export function preciseDenoiser(network: Network): Denoiser | null {
  const { dtype, residual } = network.options;
  if (dtype === "f64" || (dtype === "f32" && residual === "f32")) return null;
  const net = velocityNet(network.withActivations("f32"));
  return trigDenoiser((tape, x, t, condition) => tape.device.splitProducts(() => net(tape, x, t, condition)));
}

/** The guided teacher; `negative` is one prompt's embedding, repeated over the batch. Shapes: negative [1, M, D]. */
export function guidedTeacher(net: Net, guidance: number, negative: Tensor): Denoiser {
  const kept = new Map<number, Tensor>();
  const many = (B: number): Tensor => {
    const found = kept.get(B) ?? negative.device.persistent(() => repeated(negative, B));
    kept.set(B, found);
    return found;
  };
  return guided(denoiserOf(net), guidance, many);
}

/** One sample repeated B times. Shapes: [1, ...] -> [B, ...]. */
export function repeated(one: Tensor, B: number): Condition {
  const out = one.device.empty([B, ...one.shape.slice(1)], one.dtype);
  for (let b = 0; b < B; b++) out.window(b * one.numel, one.shape.slice(1)).set(one);
  return out;
}
