import { createHash } from "node:crypto";
import { mkdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { DIGIT_WORDS, digitOfPrompt } from "../data/digits.ts";
import { hostValues, type HostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { writeFileAtomic } from "../io/atomic.ts";
import { readSafetensors } from "../io/safetensors.ts";
import { listShards, readShard } from "../io/webdataset.ts";
import { labelAgreement } from "../metrics/agreement.ts";
import { bootstrap, gatherRows } from "../metrics/bootstrap.ts";
import { featureStats, frechetDistance } from "../metrics/frechet.ts";
import { prdc } from "../metrics/prdc.ts";
import { renderReport, type EvalReport, type EvalRow } from "../metrics/report.ts";
import { vendiScore, withinPromptVendi } from "../metrics/vendi.ts";
import { CLASSIFIER_SIZES, DigitClassifier } from "../models/digits/classifier.ts";
import type { LoadedRecipe } from "../recipe/load.ts";
import type { Recipe } from "../recipe/schema.ts";
import { Rng, streamOf } from "../rng.ts";
import { yieldToEventLoop } from "../networks/draw.ts";
import { residentNet } from "../networks/net.ts";
import { evaluationsOf, recipePlan, stepsOf, type SamplePlan } from "../networks/plan.ts";
import { drawPrompts } from "../sample/prompts.ts";
import type { Network } from "../networks/network.ts";
import { gridSheet } from "../data/sheet.ts";
import { Device, type DeviceName, type Tensor } from "../tensor.ts";
import type { OnTruncated } from "../text/embedder.ts";
import { createNetwork, loadWeights, wantsSecondTime } from "../networks/build.ts";
import type { LoadOptions } from "../weights/fit.ts";
import { hashWeights } from "../weights/resolve.ts";
import type { WeightKind } from "../models/layout.ts";

export interface EvalOptions {
  recipe: LoadedRecipe;
  /** Student weights: a run folder, checkpoint or weight file; null: the teacher alone. */
  weights: string | null;
  kind: WeightKind;
  /** How weights are loaded. */
  load?: LoadOptions;
  out: string;
  device: DeviceName;
  threads?: number;
  /** Samples per row; 0: the recipe's. */
  samples: number;
  steps: number[];
  seed: number;
  batch: number;
  command: string;
  /** An earlier eval.json whose teacher row is reused; it must have been measured in the same way. */
  reuseTeacher: string | null;
  onEvent?: (event: { row: string; done: number; total: number }) => void;
  onTruncated?: OnTruncated;
  shouldStop?: () => boolean;
}

/** Samples per prompt in the report's grids, and resamples of the bootstrap. */
const GRID_ROWS = 8;
const RESAMPLES = 20;
const EVAL_SEED_OFFSET = 1_000_003;

interface Scored {
  features: Float32Array;
  logits: Float32Array;
}

/** Samples of one row, classified. */
interface Drawn {
  name: string;
  steps: number;
  evaluations: number;
  scored: Scored;
  seconds: number;
  grid: Uint8Array;
}

/**
 * Evaluates students and teacher against held-out data; writes report.html and eval.json. Throws: E_RECIPE without
 * eval.
 */
export async function evaluateRecipe(o: EvalOptions): Promise<EvalReport> {
  const { recipe } = o.recipe;
  const section = recipe.eval;
  if (!section)
    throw new RcmError("E_RECIPE", "the recipe has no eval section", {
      op: "eval",
      want: "eval.classifier and eval.data",
    });
  const n = o.samples > 0 ? o.samples : section.samples;
  using device = Device.open({ device: o.device, threads: o.threads });
  const classifier = DigitClassifier.load(device, readSafetensors(section.classifier).tensors, section.classifier);
  const real = readReal(device, section.data, n);
  const realScored = classifier.classify(real.latents);
  const realStats = featureStats(realScored.features, n, CLASSIFIER_SIZES.features);
  // Every row draws the prompts of the held-out samples, so both sets have the same label distribution.
  const { prompts, labels } = real;

  const row = ({ name, steps, evaluations, scored, seconds, grid }: Drawn): EvalRow => {
    const d = CLASSIFIER_SIZES.features;
    const stats = featureStats(scored.features, n, d);
    const rng = new Rng(o.seed, streamOf({ use: "metric", step: steps }));
    const spread = bootstrap(
      n,
      (rows) => frechetDistance(realStats, featureStats(gatherRows(scored.features, rows, d), n, d)),
      RESAMPLES,
      () => rng.uniform(),
    );
    const p = prdc(realScored.features, scored.features, d, section.nearest);
    const agreement = labelAgreement(scored.logits, labels, n, CLASSIFIER_SIZES.classes);
    return {
      name,
      steps,
      guidanceEvals: evaluations,
      fd: frechetDistance(realStats, stats),
      fdStd: spread.std,
      ...p,
      vendi: vendiScore(scored.features, n, d),
      vendiWithin: withinPromptVendi(scored.features, labels, n, d),
      agreement: agreement.agreement,
      agreementLow: agreement.low,
      agreementHigh: agreement.high,
      secondsPerSample: seconds / n,
      speedup: Number.NaN,
      grid,
    };
  };
  const drawnRow = async (name: string, network: Network, plan: SamplePlan): Promise<EvalRow> => {
    using _scope = device.scope();
    const steps = stepsOf(plan);
    const seed = o.seed + EVAL_SEED_OFFSET;
    const job = { net: residentNet(network), plan, recipe, prompts, negativePrompt: null, seed, batch: o.batch };
    const onBatch = (done: number): void => o.onEvent?.({ row: `${name} ${steps}`, done, total: n });
    const set = await drawPrompts(device, job, { onBatch, onTruncated: o.onTruncated, shouldStop: o.shouldStop });
    await yieldToEventLoop();
    return row({
      name,
      steps,
      evaluations: evaluationsOf(plan),
      scored: classifier.classify(set.latents),
      seconds: set.seconds,
      grid: gridOf(set.latents, labels),
    });
  };

  const teacherModel = createNetwork(device, recipe, { trainable: false, secondTime: false });
  const isTeacher = recipe.objective.consistency?.kind === "flow";
  const teacherPath = recipe.teacher?.weights ?? o.weights;
  if (teacherPath === null) throw new RcmError("E_ARG", "a recipe without teacher needs --weights", { op: "eval" });
  loadWeights(teacherModel, teacherPath, teacherPath, { kind: o.kind, ...o.load });
  const { isa, threads } = device.backend.info;
  const key = teacherKey(recipe, teacherPath, { n, seed: o.seed, batch: o.batch, isa, threads });
  const teacher =
    (o.reuseTeacher && reusedTeacher(o.reuseTeacher, key)) ||
    (await drawnRow("teacher", teacherModel, recipePlan(recipe, { role: "teacher" })));
  teacher.speedup = 1;
  const rows: EvalRow[] = [];
  if (o.weights !== null && !isTeacher) {
    const student = createNetwork(device, recipe, { trainable: false, secondTime: wantsSecondTime(recipe) });
    loadWeights(student, o.weights, o.weights, { kind: o.kind, ...o.load });
    for (const steps of o.steps.length > 0 ? o.steps : recipe.sample.steps) {
      const one = await drawnRow(
        recipe.name.replace(/^digits-/, ""),
        student,
        recipePlan(recipe, { role: "student", steps }),
      );
      one.speedup = teacher.secondsPerSample / one.secondsPerSample;
      rows.push(one);
    }
  }
  const report: EvalReport = {
    title: `${recipe.name}: quality and diversity`,
    recipe: recipe.name,
    recipeHash: o.recipe.hash,
    dataset: section.data,
    realCount: n,
    fakeCount: n,
    teacher,
    rows,
    reference: referenceRow(realScored, n, section.nearest),
    created: new Date().toISOString(),
    command: o.command,
    device: `${device.backend.info.device} (${device.backend.info.isa}, ${device.backend.info.threads} threads)`,
    notes: [
      [
        "Features and labels come from the classifier shipped with the recipe.",
        "FD: Frechet distance between Gaussian fits of the features; precision, recall, density, coverage with k",
        "nearest neighbours; Vendi: effective number of distinct samples, over all prompts and within a prompt.",
      ].join(" "),
    ],
  };
  mkdirSync(o.out, { recursive: true });
  writeFileAtomic(join(o.out, "report.html"), renderReport(report));
  writeFileAtomic(join(o.out, "eval.json"), `${JSON.stringify({ teacherKey: key, ...plain(report) }, null, 2)}\n`);
  for (const one of [teacher, ...rows])
    if (one.grid) writeFileAtomic(join(o.out, `grid_${one.name}_${one.steps}.png`), one.grid);
  return report;
}

/** Hash of everything a teacher row depends on: weights, sampling, data, count, seed and machine. */
function teacherKey(
  recipe: Recipe,
  weights: string,
  { n, seed, batch, isa, threads }: { n: number; seed: number; batch: number; isa: string; threads: number },
): string {
  const { teacher_steps, teacher_sampler, teacher_shift, teacher_sigma_max } = recipe.sample;
  const settings = {
    teacher_steps,
    teacher_sampler,
    teacher_shift,
    teacher_sigma_max,
    guidance: recipe.teacher?.guidance,
    negative: recipe.teacher?.negative_prompt,
    n,
    seed,
    batch,
    data: recipe.eval?.data,
    isa,
    threads,
  };
  const hash = createHash("sha256").update(JSON.stringify(settings));
  hashWeights(hash, weights);
  hash.update(readFileSync(recipe.eval?.classifier as string));
  return hash.digest("hex").slice(0, 16);
}

/** The teacher row of an earlier evaluation with its grid. Throws: E_STATE when it was measured in another way. */
function reusedTeacher(path: string, key: string): EvalRow {
  let earlier: { teacherKey?: string; teacher: EvalRow };
  try {
    earlier = JSON.parse(readFileSync(path, "utf8"));
  } catch (cause) {
    throw new RcmError("E_IO", `cannot read ${path}: ${(cause as Error).message}`, { op: "eval", cause });
  }
  if (earlier.teacherKey !== key)
    throw new RcmError(
      "E_STATE",
      `the teacher row of ${path} was measured in another way (weights, sampling, data, count, seed or machine)`,
      { op: "eval", want: key, got: earlier.teacherKey ?? "none" },
    );
  return { ...earlier.teacher, grid: readFileSync(join(dirname(path), `grid_teacher_${earlier.teacher.steps}.png`)) };
}

/** Held-out samples in shard order. Throws: E_FORMAT when there are fewer than n. */
function readReal(
  device: Device,
  folder: string,
  n: number,
): { latents: Tensor; prompts: string[]; labels: Int32Array } {
  const hosts: HostTensor[] = [];
  const prompts: string[] = [];
  for (const path of listShards(folder)) {
    for (const sample of readShard(path)) {
      if (hosts.length === n) break;
      hosts.push(sample.latent);
      prompts.push(sample.prompt);
    }
    if (hosts.length === n) break;
  }
  if (hosts.length < n)
    throw new RcmError("E_FORMAT", `${folder} holds too few samples`, { op: "eval", want: n, got: hosts.length });
  const labels = Int32Array.from(prompts, (p) => {
    const digit = digitOfPrompt(p);
    if (digit === null)
      throw new RcmError("E_FORMAT", `no digit in the prompt "${p}"`, { op: "eval", want: DIGIT_WORDS });
    return digit;
  });
  const shape = hosts[0].shape.slice(-4);
  const latents = device.empty([n, ...shape], "f32");
  const each = latents.numel / n;
  hosts.forEach((host, i) => latents.window(i * each, [each]).setHost({ ...host, shape: [each] }));
  return { latents, prompts, labels };
}

/** One half of the held-out digits against the other: about the score of a perfect generator. */
function referenceRow(real: Scored, n: number, nearest: number): EvalRow {
  const d = CLASSIFIER_SIZES.features;
  const half = Math.floor(n / 2);
  const rows = (from: number): Float32Array => real.features.slice(from * d, (from + half) * d);
  const p = prdc(rows(0), rows(half), d, nearest);
  return {
    name: "held-out halves",
    steps: 0,
    guidanceEvals: 0,
    fd: frechetDistance(featureStats(rows(0), half, d), featureStats(rows(half), half, d)),
    ...p,
    vendi: vendiScore(real.features, n, d),
    vendiWithin: Number.NaN,
    agreement: Number.NaN,
    agreementLow: Number.NaN,
    agreementHigh: Number.NaN,
    secondsPerSample: Number.NaN,
    speedup: Number.NaN,
  };
}

/** A PNG with a column per digit. */
function gridOf(latents: Tensor, labels: Int32Array): Uint8Array {
  const host = latents.toHost();
  const [n, ...shape] = host.shape;
  const values = hostValues(host);
  const each = values.length / n;
  const byDigit = DIGIT_WORDS.map((_, digit) =>
    [...labels.keys()].filter((i) => labels[i] === digit).slice(0, GRID_ROWS),
  );
  const rows = Math.min(GRID_ROWS, ...byDigit.map((list) => list.length));
  const picked = Array.from(
    { length: rows * DIGIT_WORDS.length },
    (_, i) => byDigit[i % DIGIT_WORDS.length][Math.floor(i / DIGIT_WORDS.length)],
  );
  const data = new Float32Array(picked.length * each);
  picked.forEach((i, k) => data.set(values.subarray(i * each, (i + 1) * each), k * each));
  return gridSheet(
    [{ dtype: "f32", shape: [picked.length, ...shape], data: new Uint8Array(data.buffer) }],
    DIGIT_WORDS.length,
  );
}

/** The report as JSON: no pictures, NaN as null. */
export function plain(report: EvalReport): Record<string, unknown> {
  const strip = ({ grid: _grid, ...rest }: EvalRow): Record<string, unknown> => rest;
  return {
    ...report,
    teacher: strip(report.teacher),
    rows: report.rows.map(strip),
    ...(report.reference ? { reference: strip(report.reference) } : {}),
  } as Record<string, unknown>;
}

export type { EvalReport, EvalRow } from "../metrics/report.ts";
