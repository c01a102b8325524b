import * as v from "valibot";
import { allPresets } from "../models/families.ts";
import { FEW_STEP_MODES, STUDENT_FORMS, TEACHER_SAMPLERS } from "../samplers/list.ts";
import { MOST_STEPS } from "../samplers/times.ts";
import { CHECKPOINT_MODES } from "../tape.ts";
import { TIME_PRECISIONS } from "../models/family.ts";

/** The recipe language. Keys are snake_case; every default below is written into the resolved recipe of a run. */

const positive = v.pipe(v.number(), v.finite(), v.gtValue(0));
const nonNegative = v.pipe(v.number(), v.finite(), v.minValue(0));
const count = v.pipe(v.number(), v.integer(), v.minValue(1));
const whole = v.pipe(v.number(), v.integer(), v.minValue(0));
const fraction = v.pipe(v.number(), v.minValue(0), v.maxValue(1));
const text = v.pipe(v.string(), v.minLength(1));
const dtype = v.picklist(["f32", "bf16"]);

const note = v.description;

export const timesSchema = v.pipe(
  v.variant("kind", [
    v.strictObject({ kind: v.literal("log_normal"), mean: v.pipe(v.number(), v.finite()), std: positive }),
    v.strictObject({ kind: v.literal("uniform_shift"), shift: nonNegative }),
  ]),
  note("distribution of diffusion times: sigma log-normal, or RF time uniform with a shift"),
);

const modelSchema = v.strictObject({
  preset: v.pipe(v.picklist(Object.keys(allPresets("train"))), note("network size")),
  dim: v.optional(count),
  heads: v.optional(count),
  layers: v.optional(count),
  ffn_dim: v.optional(count),
  dtype: v.pipe(
    v.optional(dtype, "f32"),
    note("storage of weights and activations; masters and optimizer state are f32"),
  ),
  residual: v.pipe(v.optional(dtype, "f32"), note("storage of the residual stream and its tangent")),
  checkpoint: v.pipe(v.optional(v.picklist(CHECKPOINT_MODES), "none"), note("what backward recomputes")),
  time: v.pipe(
    v.optional(v.picklist(TIME_PRECISIONS), "exact"),
    note("exact: times stay f64 up to the sinusoid; bf16: rounded as the public code does"),
  ),
  init: v.pipe(v.optional(text, "teacher"), note("starting weights: teacher, random, or the path of a checkpoint")),
});

const optimizerSchema = v.strictObject({
  lr: positive,
  betas: v.optional(
    v.strictTuple([v.pipe(v.number(), v.minValue(0), v.ltValue(1)), v.pipe(v.number(), v.minValue(0), v.ltValue(1))]),
    [0, 0.999],
  ),
  eps: v.optional(positive, 1e-8),
  weight_decay: v.optional(nonNegative, 0.01),
  warmup_steps: v.pipe(v.optional(whole, 100), note("linear warm-up of the learning rate, optimizer steps")),
  decay_steps: v.pipe(v.optional(whole, 0), note("cosine decay to lr_min over the last N steps; 0: constant")),
  lr_min: v.optional(nonNegative, 0),
  max_grad_norm: v.pipe(v.optional(nonNegative, 0), note("clip to this global norm; 0: no clipping")),
});

const scmSchema = v.strictObject({
  kind: v.literal("scm"),
  scale: v.optional(nonNegative, 100),
  times: v.optional(timesSchema, { kind: "log_normal", mean: -0.8, std: 1.6 }),
  tangent: v.optional(v.picklist(["jvp", "semi_continuous", "finite_difference"]), "jvp"),
  fd_size: v.optional(positive, 1e-4),
  tangent_warmup: v.pipe(
    v.optional(whole, 0),
    note("steps over which the tangent ramps up; with dmd also the pure-consistency phase"),
  ),
  passes: v.pipe(
    v.optional(v.picklist(["one", "two"]), "one"),
    note("one: value and tangent share a pass; two: separate passes, as the public code"),
  ),
  tangent_precision: v.pipe(
    v.optional(v.picklist(["storage", "f32"]), "storage"),
    note(
      "storage: the tangent is rounded as activations are; " +
        "f32: it is computed by a separate pass in f32-grade arithmetic",
    ),
  ),
  ramp_scope: v.pipe(
    v.optional(v.picklist(["x_t", "second_term"]), "x_t"),
    note("x_t: as the public code; second_term: as the sCM paper"),
  ),
});

const dcmSchema = v.strictObject({
  kind: v.literal("dcm"),
  scale: v.optional(nonNegative, 100),
  total_steps: v.optional(count, 48),
  skip_steps: v.optional(count, 1),
  shift: v.optional(positive, 5),
});

const dmdSchema = v.strictObject({
  scale: v.optional(positive, 1),
  times: v.optional(timesSchema, { kind: "log_normal", mean: 0, std: 1.6 }),
  simulation_steps: v.pipe(v.optional(count, 4), note("most steps of the backward simulation")),
  fixed_times: v.pipe(
    v.optional(v.nullable(v.array(positive)), null),
    note("TrigFlow times of the simulation's steps after the first; null: drawn"),
  ),
  student_every: v.pipe(
    v.optional(count, 5),
    note("one student step per this many iterations; the others train the critic"),
  ),
  critic: v.pipe(optimizerSchema, note("optimizer of the critic (fake score)")),
});

const meanflowSchema = v.strictObject({
  kind: v.literal("meanflow"),
  times: v.optional(timesSchema, { kind: "log_normal", mean: -0.4, std: 1 }),
  equal_fraction: v.pipe(v.optional(fraction, 0.25), note("share of samples with r = t")),
  velocity: v.pipe(
    v.optional(v.picklist(["data", "teacher", "self"]), "teacher"),
    note("source of the instantaneous velocity; teacher uses teacher.guidance"),
  ),
  self_scale: v.optional(positive, 1),
  self_mix: v.optional(nonNegative, 0),
  tangent: v.optional(v.picklist(["jvp", "finite_difference"]), "jvp"),
  fd_size: v.optional(positive, 1e-3),
  norm_power: v.optional(nonNegative, 1),
  norm_const: v.optional(positive, 1e-3),
  tangent_warmup: v.optional(whole, 0),
  spatial_invariance: v.optional(v.boolean(), false),
  form: v.optional(v.picklist(["gradient", "l2"]), "gradient"),
});

const flowSchema = v.strictObject({
  kind: v.literal("flow"),
  times: v.optional(timesSchema, { kind: "log_normal", mean: 0, std: 1 }),
  text_dropout: v.pipe(v.optional(fraction, 0.1), note("share of samples trained without text, for guidance")),
});

export const recipeSchema = v.strictObject({
  name: v.pipe(text, v.regex(/^[a-z0-9][a-z0-9._-]*$/, "lower-case letters, digits, dots, dashes")),
  extends: v.pipe(v.optional(text), note("another recipe, relative to this file; this one overrides it key by key")),
  model: modelSchema,
  teacher: v.optional(
    v.nullable(
      v.strictObject({
        weights: v.pipe(text, note("checkpoint of any known format; relative paths start at the folder of the recipe")),
        guidance: v.pipe(v.optional(v.pipe(v.number(), v.minValue(1)), 5), note("classifier-free guidance scale")),
        negative_prompt: v.optional(v.string(), ""),
        negative_embed: v.pipe(
          v.optional(v.nullable(text), null),
          note("torch file with the embedding of the negative prompt; null: negative_prompt is encoded"),
        ),
      }),
    ),
    null,
  ),
  text: v.pipe(
    v.optional(
      v.nullable(
        v.strictObject({
          encoder: v.pipe(text, note("checkpoint of the text encoder")),
          tokenizer: v.pipe(text, note("tokenizer.json or sentencepiece model")),
          cache: v.pipe(v.optional(v.nullable(text), null), note("folder that keeps embeddings of prompts")),
        }),
      ),
      null,
    ),
    note("text encoder for prompts that are not stored as embeddings; null: the byte-level encoder of small networks"),
  ),
  data: v.strictObject({
    path: v.pipe(text, note("folder of webdataset shards")),
    shape: v.pipe(
      v.strictTuple([count, count, count, count]),
      note("shape of the stored latents: channels, frames, rows, columns"),
    ),
    frames: v.pipe(
      v.optional(v.nullable(count), null),
      note("train on the first N latent frames of each sample; null: all"),
    ),
    vae_round_trip: v.pipe(
      v.optional(v.nullable(text), null),
      note(
        "weights of the VAE: each latent is decoded to pixels and encoded again, as the public code does; " +
          "null: stored latents are used unchanged",
      ),
    ),
    shuffle_buffer: v.optional(count, 1000),
  }),
  objective: v.strictObject({
    consistency: v.pipe(
      v.optional(v.nullable(v.variant("kind", [scmSchema, dcmSchema, meanflowSchema, flowSchema])), null),
      note("trajectory objective; null: pure dmd"),
    ),
    dmd: v.pipe(v.optional(v.nullable(dmdSchema), null), note("score regularizer; null: pure consistency")),
    on_nonfinite: v.pipe(
      v.optional(v.picklist(["raise", "skip", "zero"]), "raise"),
      note(
        "raise: stop; skip: drop and count samples whose target is not finite; " +
          "zero: drop them silently, as the public code",
      ),
    ),
  }),
  optimizer: optimizerSchema,
  ema: v.optional(
    v.strictObject({
      length: v.pipe(
        v.optional(v.pipe(v.number(), v.gtValue(0), v.ltValue(0.289)), 0.05),
        note("relative width of the power-function EMA"),
      ),
      shift: v.optional(whole, 0),
      counter: v.pipe(
        v.optional(v.picklist(["updates", "iterations"]), "updates"),
        note("updates: student updates made; iterations: warm-up + rest / student_every, as the public code"),
      ),
    }),
    { length: 0.05, shift: 0, counter: "updates" },
  ),
  train: v.strictObject({
    steps: v.pipe(count, note("iterations, student and critic together")),
    batch: count,
    accumulate: v.optional(count, 1),
    graphs: v.pipe(
      v.optional(v.picklist(["auto", "on", "off"]), "auto"),
      note("GPU: evaluations recorded once and launched as one; auto: where networks are too small to keep a GPU busy"),
    ),
    seed: v.optional(whole, 0),
    deterministic: v.pipe(
      v.optional(v.boolean(), true),
      note(
        "true: the same seed gives the same bits every run, also when resumed; " +
          "false: GPU kernels may sum in any order where that is faster",
      ),
    ),
    log_every: v.optional(count, 50),
    checkpoint_every: v.optional(count, 500),
    keep_checkpoints: v.optional(count, 2),
    sample_every: v.pipe(v.optional(whole, 500), note("sample grids; 0: none")),
  }),
  sample: v.optional(
    v.strictObject({
      steps: v.optional(v.array(v.pipe(count, v.maxValue(MOST_STEPS))), [1, 2, 4]),
      sigma_max: v.optional(positive, 80),
      mid_times: v.pipe(
        v.optional(v.nullable(v.array(positive)), [1.5, 1.4, 1.0]),
        note("TrigFlow times after the first step; null: those of the public code, and ours beyond 4 steps"),
      ),
      form: v.optional(v.picklist(STUDENT_FORMS), "rf"),
      mode: v.pipe(
        v.optional(v.picklist(FEW_STEP_MODES), "sde"),
        note("student: each step adds new noise (sde) or is deterministic (ode)"),
      ),
      teacher_steps: v.optional(count, 50),
      teacher_sampler: v.optional(v.picklist(TEACHER_SAMPLERS), "euler"),
      teacher_shift: v.optional(positive, 5),
      teacher_sigma_max: v.optional(positive, 80),
      prompts: v.pipe(v.optional(v.array(v.string())), note("prompts of the sample grids")),
    }),
    {},
  ),
  eval: v.optional(
    v.nullable(
      v.strictObject({
        classifier: v.pipe(text, note("weights of the feature and label classifier")),
        data: v.pipe(text, note("held-out shards")),
        samples: v.optional(count, 2000),
        nearest: v.pipe(v.optional(count, 5), note("k of precision, recall, density, coverage")),
      }),
    ),
    null,
  ),
});

/** Latent shape of training and sampling: the stored shape, truncated to data.frames. */
export const latentShape = ({ data: { shape, frames } }: Recipe): [number, number, number, number] => [
  shape[0],
  frames ?? shape[1],
  shape[2],
  shape[3],
];

export type Recipe = v.InferOutput<typeof recipeSchema>;
export type RecipeInput = v.InferInput<typeof recipeSchema>;
export type Times = v.InferOutput<typeof timesSchema>;
export type OptimizerRecipe = v.InferOutput<typeof optimizerSchema>;
export type ScmRecipe = v.InferOutput<typeof scmSchema>;
export type DcmRecipe = v.InferOutput<typeof dcmSchema>;
export type MeanflowRecipe = v.InferOutput<typeof meanflowSchema>;
export type FlowRecipe = v.InferOutput<typeof flowSchema>;
export type DmdRecipe = v.InferOutput<typeof dmdSchema>;
