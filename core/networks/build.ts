import type { DType, HostTensor } from "../dtype.ts";
import { guided, trigDenoiser, type Condition, type Denoiser, type Time, type VelocityNet } from "../diffusion/predict.ts";
import { fromBf16Bits, toBf16Bits } from "../dtype.ts";
import type { MeanVelocityNet } from "../losses/meanflow.ts";
import { WAN_PRESETS, type WanConfig } from "../models/wan/config.ts";
import { WanModel, type NetTime, type WanGraph } from "../models/wan/model.ts";
import type { ParamSet } from "../nn/params.ts";
import type { Recipe } from "../recipe/schema.ts";
import type { Device, Tensor } from "../tensor.ts";
import { constant } from "../tape.ts";
import { loadWan, type LoadOptions, type LoadReport } from "../weights/load.ts";

/** Network configuration of a recipe: the preset with the recipe's own sizes on top. */
export function wanConfig(model: Recipe["model"], secondTime: boolean): WanConfig {
  const base = WAN_PRESETS[model.preset];
  return {
    ...base,
    dim: model.dim ?? base.dim,
    heads: model.heads ?? base.heads,
    layers: model.layers ?? base.layers,
    ffnDim: model.ffn_dim ?? base.ffnDim,
    secondTime,
  };
}

/** Whether a recipe's student takes MeanFlow's second time. */
export const wantsSecondTime = (recipe: Recipe): boolean => recipe.objective.consistency?.kind === "meanflow";

export function createModel(device: Device, recipe: Recipe, role: { trainable: boolean; secondTime: boolean }): WanModel {
  const { dtype, residual, checkpoint } = recipe.model;
  return WanModel.create(device, wanConfig(recipe.model, role.secondTime), { dtype: dtype as DType, residual: residual as DType, checkpoint, trainable: role.trainable });
}

/** Weights on the host by original names, a path that is streamed (any format, see core/weights), or what fills the parameters itself. */
export type WeightSource = ReadonlyMap<string, HostTensor> | string | ((params: ParamSet) => void);

/** A student that starts as the teacher, whose weights are copied on the device. */
export const FROM_TEACHER = Symbol("from teacher");

const isSecondTime = (name: string): boolean => name.startsWith("time_embedding_r.");

/** Loads weights; a student with a second time may lack it and then keeps its own, which starts at zero: it begins as the teacher. */
export function loadWeights(model: WanModel, weights: WeightSource, what: string, options: LoadOptions = {}): LoadReport | null {
  if (typeof weights === "string") return loadWan(model.params, weights, { ...options, optional: isSecondTime });
  if (typeof weights === "function") {
    weights(model.params);
    return null;
  }
  const all = new Map(weights);
  for (const { name } of model.params.specs) {
    if (!isSecondTime(name) || all.has(name)) continue;
    all.set(name, model.params.tensor(name).toHost());
  }
  model.load(all, what);
  return null;
}

/** Copies every parameter that two networks share, on the device; what only `to` has stays as it is. */
export function copyWeights(from: ParamSet, to: ParamSet): void {
  if (from.specs.length === to.specs.length) to.flat.set(from.flat);
  else for (const name of from.names) to.tensor(name).set(from.tensor(name));
}

const roundTime = (v: Float64Array): Float64Array => v.map((t) => fromBf16Bits(toBf16Bits(t)));

/** Network time of an RF time; `bf16` rounds value and tangent as the public code does. */
function netTime(time: Time, scale: number, precision: "exact" | "bf16"): NetTime {
  const t = time.t.map((v) => v * scale);
  const dot = time.dot && time.dot.map((v) => v * scale);
  return precision === "exact" ? { t, dot } : { t: roundTime(t), dot: dot && roundTime(dot) };
}

/** What evaluates as the Wan network does. */
export type Evaluates = Pick<WanGraph, "config" | "forward">;

/** The model as a rectified-flow velocity network. With a second time it is evaluated at r = t (instantaneous velocity). */
export function velocityNet(model: Evaluates, precision: "exact" | "bf16" = "exact"): VelocityNet {
  const { timeScale, secondTime } = model.config;
  return (tape, x, tRf, condition) => {
    const time = netTime(tRf, timeScale, precision);
    return model.forward(tape, x, time, constant(condition), secondTime ? time : null);
  };
}

/** The model as MeanFlow's average velocity u(x, t, r). */
export function meanVelocityNet(model: Evaluates, precision: "exact" | "bf16" = "exact"): MeanVelocityNet {
  const { timeScale } = model.config;
  return (tape, x, t, r, condition) => model.forward(tape, x, netTime(t, timeScale, precision), constant(condition), netTime(r, timeScale, precision));
}

export const denoiserOf = (model: Evaluates, precision: "exact" | "bf16"): Denoiser => trigDenoiser(velocityNet(model, precision));

/**
 * The model with f32-grade arithmetic, for tangents: activations are f32 whatever the storage of the weights, and products of f32
 * split their factors in two bf16 (rcm_f32_products). Null where the model computes in f32 or f64 anyway.
 */
export function preciseDenoiser(model: WanModel, precision: "exact" | "bf16" = "exact"): Denoiser | null {
  if (model.options.dtype === "f64" || (model.options.dtype === "f32" && model.options.residual === "f32")) return null;
  const net = velocityNet(model.withActivations("f32"), precision);
  return trigDenoiser((tape, x, t, condition) => tape.device.splitProducts(() => net(tape, x, t, condition)));
}

/** The guided teacher; `negative` is one prompt's embedding, repeated over the batch. Shapes: negative [1, M, textDim]. */
export function guidedTeacher(model: Evaluates, recipe: Recipe, negative: Tensor): Denoiser {
  const kept = new Map<number, Tensor>();
  const many = (B: number): Tensor => {
    const found = kept.get(B) ?? negative.device.persistent(() => repeated(negative, B));
    kept.set(B, found);
    return found;
  };
  return guided(denoiserOf(model, recipe.model.time), recipe.teacher?.guidance ?? 1, many);
}

/** One sample repeated B times. Shapes: [1, ...] -> [B, ...]. */
export function repeated(one: Tensor, B: number): Condition {
  const out = one.device.empty([B, ...one.shape.slice(1)], one.dtype);
  for (let b = 0; b < B; b++) out.window(b * one.numel, one.shape.slice(1)).set(one);
  return out;
}
