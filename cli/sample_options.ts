import type { ArgsDef } from "citty";
import type { DType } from "../core/dtype.ts";
import { allPresets, presetNet, videoNet } from "../core/models/families.ts";
import type { NetSpec } from "../core/models/family.ts";
import { latentShape, type Recipe } from "../core/recipe/schema.ts";
import type { PlanSettings } from "../core/networks/plan.ts";
import { EXPERT_BOUNDARY } from "../core/sample/i2v.ts";
import { VIDEO_FORMATS } from "../core/sample/output.ts";
import type { SampleOptions } from "../core/sample/run.ts";
import { parseShard } from "../core/io/shard.ts";
import { recipeEncoder } from "../core/text/open.ts";
import { FEW_STEP_MODES, STUDENT_FORMS, TEACHER_SAMPLERS } from "../core/samplers/list.ts";
import { MOST_STEPS } from "../core/samplers/times.ts";
import { recipeNet, wantsSecondTime } from "../core/networks/build.ts";
import { RESIZE_FILTERS, type ResizeFilter } from "../core/video/image.ts";
import { parseSize, trainedSize, videoOf, type VideoSize } from "../core/video/sizes.ts";
import { decimal, deviceOf, flag, integer, oneOf, option, promptsOf, usage } from "./args.ts";
import { loading } from "./ui.ts";
import { WEIGHT_KINDS } from "../core/models/layout.ts";

/** Flags of every network. An empty value means that the flag was not given. */
export const SAMPLER_ARGS = {
  "sigma-max": option("noise level of the first step; default 80, 200 with --image, 5000 with --teacher", "S", ""),
  "mid-times": option(
    "TrigFlow times between the first step and 0, comma-separated; default 1.5,1.4,1.0 for up to 4 steps",
    "LIST",
    "",
  ),
  form: option("student: trig or rf; they differ in the first input's factor only; default rf", "FORM", ""),
  sampler: option("student: sde or ode, default sde; teacher: euler or unipc, default unipc", "NAME", ""),
  guidance: option("teacher: classifier-free guidance; default 5, 1: none", "W", ""),
  shift: option("teacher: timestep shift; default 5", "S", ""),
  "negative-prompt": option("teacher: what guidance moves away from", "TEXT", ""),
  dtype: option("bf16, f16 or f32; default bf16", "DTYPE", ""),
  residual: option("storage of the residual stream: f32 or bf16; default f32", "DTYPE", ""),
  offload: flag(
    "for small cards: blocks stream from host memory, and the network leaves the device while frames are decoded",
  ),
} as const satisfies ArgsDef;

const EMBED_FILES = ".pt or .safetensors of [tokens, width] or [n, tokens, width]";

/** Flags of videos. */
export const VIDEO_ARGS = {
  model: option("wan2.1-1.3b, wan2.1-14b or wan2.2-i2v-a14b; default: inferred from --weights", "NAME", ""),
  "text-encoder": option("umT5 weights: .pth, .safetensors or folder", "FILE", ""),
  tokenizer: option("tokenizer.json or sentencepiece .model of umT5", "FILE", ""),
  "text-cache": option("folder that keeps encoded prompts", "DIR", ""),
  embeds: option(`embeddings instead of a text encoder: ${EMBED_FILES}, or a folder of them`, "PATH", ""),
  "negative-embeds": option("embedding of the negative prompt", "FILE", ""),
  vae: option("Wan2.1 VAE weights", "FILE", ""),
  tile: option("decode in tiles of N latent rows and columns, for small cards; 0: whole; default 0", "N", ""),
  "latents-only": flag("no VAE: write latents as .pt"),
  "save-latents": flag("also write the latents"),
  resolution: option("480p or 720p; default 480p, 720p with --image", "NAME", ""),
  aspect: option("16:9, 9:16, 1:1, 4:3 or 3:4; default 16:9", "W:H", ""),
  size: option("another size, both sides multiples of 16, for example 704x544", "WxH", ""),
  frames: option("4n + 1; default 77, 81 with --teacher or --image; 1: a still", "N", ""),
  image: option("picture that becomes the first frame (Wan2.2 I2V)", "FILE", ""),
  "weights-high": option("expert of the noisy steps", "FILE", ""),
  "weights-low": option("expert of the other steps", "FILE", ""),
  boundary: option("RF time at which the experts change; default 0.9", "T", ""),
  "adaptive-resolution": flag("the picture's proportions at the area of --resolution and --aspect"),
  resize: option("filter for the picture: bilinear, bicubic or lanczos; default bicubic", "NAME", ""),
  format: option("mp4, or png: a folder of frames; default mp4", "NAME", ""),
  shard: option("draw part I of N (I from 0), for job arrays", "I/N", ""),
  overwrite: flag("replace samples of other settings in the output folder"),
} as const satisfies ArgsDef;

const I2V = "wan2.2-i2v-a14b";
/** Networks whose latents an autoencoder decodes. */
const MODELS = Object.entries(allPresets())
  .filter(([, { family, config }]) => family.latent(config).vae !== null)
  .map(([name]) => name);

type Values = Record<string, unknown>;

/** The sampling plan of the flags. */
function planOf(a: Values): PlanSettings {
  const fromFlag = <K extends string, T>(key: K, flag: string, read: (v: string) => T): { [P in K]?: T } => {
    const out: { [P in K]?: T } = {};
    if (a[flag] !== "") out[key] = read(String(a[flag]));
    return out;
  };
  const number = (flag: string, least: number) => (v: string): number => decimal(v, flag, least);
  const shared = {
    ...fromFlag("steps", "steps", (v) => integer(v, "steps", 1)),
    ...fromFlag("sigmaMax", "sigma-max", number("sigma-max", 1e-3)),
  };
  if (a.teacher === true) {
    for (const k of ["form", "mid-times"])
      if (a[k] !== "") throw usage(`--${k} is for students, --teacher asks for the teacher`);
    return {
      role: "teacher",
      ...shared,
      ...fromFlag("sampler", "sampler", (v) => oneOf(v, "sampler", TEACHER_SAMPLERS)),
      ...fromFlag("guidance", "guidance", number("guidance", 1)),
      ...fromFlag("shift", "shift", number("shift", 1)),
    };
  }
  for (const k of ["guidance", "shift", "negative-prompt", "negative-embeds"]) {
    if (a[k] !== "") throw usage(`--${k} is for --teacher: a student needs no guidance`);
  }
  if ((shared.steps ?? 1) > MOST_STEPS) throw usage(`--steps ${shared.steps}: a student takes at most ${MOST_STEPS}`);
  const numbers = (v: string): number[] => v.split(",").map((t) => decimal(t, "mid-times", 0));
  return {
    role: "student",
    ...shared,
    ...fromFlag("midTimes", "mid-times", numbers),
    ...fromFlag("form", "form", (v) => oneOf(v, "form", STUDENT_FORMS)),
    ...fromFlag("mode", "sampler", (v) => oneOf(v, "sampler", FEW_STEP_MODES)),
  };
}

function weightsOf(a: Values, recipe: Recipe | null, i2v: boolean): SampleOptions["weights"] {
  const experts = a["weights-high"] !== "" || a["weights-low"] !== "";
  if (i2v || experts) {
    if (a["weights-high"] === "" || a["weights-low"] === "" || a.weights !== undefined)
      throw usage("Wan2.2 I2V has two experts: --weights-high and --weights-low name them, and --weights is not given");
    const boundary = a.boundary === "" ? EXPERT_BOUNDARY : decimal(String(a.boundary), "boundary", 0);
    return { high: String(a["weights-high"]), low: String(a["weights-low"]), boundary };
  }
  if (a.boundary !== "") throw usage("--boundary is for two experts");
  const path = a.weights ?? (a.teacher === true ? recipe?.teacher?.weights : undefined);
  if (path === undefined) throw usage("--weights names the network's weights");
  return { path: String(path) };
}

function netOf(a: Values, recipe: Recipe | null): NetSpec | null {
  if (recipe) return recipeNet(recipe, a.teacher !== true && wantsSecondTime(recipe));
  return a.model === "" ? null : presetNet(oneOf(String(a.model), "model", MODELS));
}

/** Prompts of the flags and, without any, of the recipe. */
function promptsOrRecipe(a: Values, rawArgs: string[], recipe: Recipe | null): string[] {
  const given = promptsOf(rawArgs, a.prompts === undefined ? undefined : String(a.prompts));
  return given.length > 0 ? given : (recipe?.sample.prompts ?? []);
}

function sizeOf(a: Values, recipe: Recipe | null, i2v: boolean): { size: VideoSize; frames: number } {
  const net = netOf(a, recipe) ?? videoNet();
  const { video } = net.family;
  const ofRecipe = recipe && videoOf(latentShape(recipe), net.latent.strides);
  const named = a.resolution !== "" || a.aspect !== "";
  if (named && a.size !== "") throw usage("--size excludes --resolution and --aspect");
  const size = (): VideoSize => {
    if (a.size !== "") return parseSize(String(a.size), net);
    if (ofRecipe && !named) return ofRecipe;
    if (!video) throw usage(`${net.family.title} networks have no named sizes: give --size`);
    const resolutions = Object.keys(video.sizes);
    const usual = i2v ? resolutions[resolutions.length - 1] : resolutions[0];
    const resolution = oneOf(String(a.resolution || usual), "resolution", resolutions);
    const aspects = Object.keys(video.sizes[resolution]);
    return trainedSize(video, resolution, oneOf(String(a.aspect || aspects[0]), "aspect", aspects));
  };
  const usual = video?.frames[i2v || a.teacher === true ? "teacher" : "student"] ?? 1;
  const fallback = ofRecipe?.frames ?? usual;
  return { size: size(), frames: a.frames === "" ? fallback : integer(String(a.frames), "frames", 1) };
}

/** The recipe's text encoder, with the cache of the flag if there is one. */
function encoderOf(recipe: Recipe | null, cache: string | null): SampleOptions["text"] {
  const files = recipe && recipeEncoder(recipe);
  return files && { ...files, cache: cache ?? files.cache };
}

/** The options that the flags and a recipe give. Throws: E_ARG. */
export function sampleOptions(a: Values, rawArgs: string[], recipe: Recipe | null): SampleOptions {
  const i2v = a.model === I2V || a.image !== "";
  if (a.model !== "" && recipe) throw usage("--model and a recipe both name the network");
  if (i2v && a.image === "") throw usage("Wan2.2 I2V starts from a picture: --image");
  if (!i2v)
    for (const k of ["adaptive-resolution", "resize"])
      if (a[k] !== "" && a[k] !== false) throw usage(`--${k} goes with --image`);
  const still = recipe !== null && recipeNet(recipe).latent.vae === null;
  const unused = Object.keys(VIDEO_ARGS).filter((k) => a[k] !== "" && a[k] !== false && a[k] !== undefined);
  if (still && unused.length > 0) {
    const flags = unused.map((k) => `--${k}`).join(" ");
    throw usage(`${flags}: for Wan networks, and ${String(a.recipe)} is of digits`);
  }
  const plan = planOf(a);
  const given = (key: string): string | null => (a[key] === "" ? null : String(a[key]));
  const encoder = given("text-encoder");
  if (encoder !== null && given("tokenizer") === null) throw usage("--text-encoder needs its --tokenizer");
  if (!still && given("vae") === null && a["latents-only"] !== true)
    throw usage("--vae decodes the videos; --latents-only goes without");
  const dtypes = ["bf16", "f16", "f32"] as const;
  return {
    recipe,
    net: netOf(a, recipe),
    weights: weightsOf(a, recipe, i2v),
    kind: oneOf(String(a.kind), "kind", WEIGHT_KINDS),
    load: loading(a["allow-partial"] === true),
    text:
      encoder === null
        ? encoderOf(recipe, given("text-cache"))
        : { weights: encoder, tokenizer: String(a.tokenizer), cache: given("text-cache") },
    vae:
      still || a["latents-only"] === true
        ? null
        : { weights: String(a.vae), tile: a.tile === "" ? 0 : integer(String(a.tile), "tile") },
    embeds: given("embeds"),
    negativeEmbeds: given("negative-embeds"),
    prompts: promptsOrRecipe(a, rawArgs, recipe),
    negativePrompt: given("negative-prompt"),
    each: integer(String(a.each), "each", 1),
    plan,
    ...sizeOf(a, recipe, i2v),
    image: i2v
      ? {
          path: String(a.image),
          adaptive: a["adaptive-resolution"] === true,
          resize: oneOf(String(a.resize || "bicubic"), "resize", Object.keys(RESIZE_FILTERS) as ResizeFilter[]),
        }
      : null,
    seed: integer(String(a.seed), "seed"),
    batch: a.batch === "" ? (still ? 64 : 1) : integer(String(a.batch), "batch", 1),
    shard: a.shard === "" ? { index: 0, count: 1 } : parseShard(String(a.shard)),
    out: String(a.out),
    overwrite: a.overwrite === true,
    format: oneOf(String(a.format || "mp4"), "format", VIDEO_FORMATS),
    saveLatents: a["save-latents"] === true,
    dtype: oneOf(String(a.dtype || recipe?.model.dtype || "bf16"), "dtype", dtypes) as DType,
    time: recipe?.model.time ?? "exact",
    residual: oneOf(String(a.residual || recipe?.model.residual || "f32"), "residual", dtypes) as DType,
    offload: a.offload === true,
    device: deviceOf(String(a.device)),
    threads: integer(String(a.threads), "threads"),
  };
}
