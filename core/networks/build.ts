import { guided, trigDenoiser, type Condition, type Denoiser } from "../diffusion/predict.ts";
import type { DType, HostTensor } from "../dtype.ts";
import { presetNet } from "../models/families.ts";
import { netSpec, type Net, type NetOptions, type NetSpec } from "../models/family.ts";
import type { ParamSet } from "../nn/params.ts";
import type { Recipe } from "../recipe/schema.ts";
import type { Device, Tensor } from "../tensor.ts";
import { loadNetwork, type LoadOptions, type LoadReport } from "../weights/fit.ts";
import { Network, velocityNet } from "./network.ts";

/** The network of a recipe: its preset, resized as the recipe says. */
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

/** Whether a recipe's student is conditioned on MeanFlow's second time. */
export const wantsSecondTime = (recipe: Recipe): boolean => recipe.objective.consistency?.kind === "meanflow";

/** Storage, checkpointing and time rounding of a recipe's networks. */
export const netOptions = ({ model }: Recipe): NetOptions => ({
  dtype: model.dtype as DType,
  residual: model.residual as DType,
  checkpoint: model.checkpoint,
  time: model.time,
});

/** Allocates a network of a recipe, zero filled. */
export const createNetwork = (
  device: Device,
  recipe: Recipe,
  role: { trainable: boolean; secondTime: boolean },
): Network => Network.create(device, recipeNet(recipe, role.secondTime), netOptions(recipe), role.trainable);

/**
 * Where weights come from: host tensors by name, a path (any format, see core/weights), or a function that fills the
 * parameters.
 */
export type WeightSource = ReadonlyMap<string, HostTensor> | string | ((params: ParamSet) => void);

/** Starts the student from the teacher's weights, copied on the device. */
export const FROM_TEACHER = Symbol("from teacher");

/** Loads weights; optional parameters that are absent keep their current values. */
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

/** Copies every parameter that both networks have, on the device; other parameters of `to` keep their values. */
export function copyWeights(from: ParamSet, to: ParamSet): void {
  if (from.specs.length === to.specs.length) to.flat.set(from.flat);
  else for (const name of from.names) to.tensor(name).set(from.tensor(name));
}

export const denoiserOf = (net: Net): Denoiser => trigDenoiser(velocityNet(net));

/**
 * The network with f32-grade arithmetic, for tangents: activations are f32 for any storage of the weights, and f32
 * matrix products split each factor into two bf16 terms (rcm_f32_products). Null when the network already computes in
 * f32 or f64.
 */
export function preciseDenoiser(network: Network): Denoiser | null {
  const { dtype, residual } = network.options;
  if (dtype === "f64" || (dtype === "f32" && residual === "f32")) return null;
  const net = velocityNet(network.withActivations("f32"));
  return trigDenoiser((tape, x, t, condition) => tape.device.splitProducts(() => net(tape, x, t, condition)));
}

/** The guided teacher; `negative` is one prompt's embedding, repeated over the batch. Shapes: negative [1, M, D]. */
export function guidedTeacher(net: Net, guidance: number, negative: Tensor): Denoiser {
  const byBatch = new Map<number, Tensor>();
  const uncondition = (B: number): Tensor => {
    const batch = byBatch.get(B) ?? negative.device.persistent(() => repeated(negative, B));
    byBatch.set(B, batch);
    return batch;
  };
  return guided(denoiserOf(net), guidance, uncondition);
}

/** One sample repeated B times. Shapes: [1, ...] -> [B, ...]. */
export function repeated(one: Tensor, B: number): Condition {
  const out = one.device.empty([B, ...one.shape.slice(1)], one.dtype);
  for (let b = 0; b < B; b++) out.window(b * one.numel, one.shape.slice(1)).set(one);
  return out;
}
