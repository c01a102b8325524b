import { defineCommand, type ArgsDef } from "citty";
import { ALL_INPUTS, ATTENTION_SHAPES, benchAttention, type AttentionInputs } from "../core/bench/attention.ts";
import { benchCopy, copyCeiling } from "../core/bench/copy.ts";
import { benchGemm, matmulCeiling, type GemmShape, type Pass } from "../core/bench/gemm.ts";
import { jvpError, jvpErrorLarge } from "../core/bench/jvp_error.ts";
import {
  benchForward,
  benchJvp,
  benchRcmStep,
  benchSample,
  benchStudentStep,
  benchModels,
  gemmShapes,
  type NetworkSize,
} from "../core/bench/network.ts";
import { benchLoad } from "../core/bench/load.ts";
import { benchOps } from "../core/bench/ops.ts";
import { benchStep, type StepRow } from "../core/bench/step.ts";
import { TIMING, type BenchReport, type BenchRow, type TimeOptions } from "../core/bench/time.ts";
import { benchVae, benchVaes } from "../core/bench/vae.ts";
import type { DType } from "../core/dtype.ts";
import { RcmError } from "../core/error.ts";
import { loadRecipe } from "../core/recipe/load.ts";
import { allPresets, DIGITS_NET } from "../core/models/families.ts";
import { netSpec } from "../core/models/family.ts";
import { CHECKPOINT_MODES } from "../core/tape.ts";
import { Device } from "../core/tensor.ts";
import {
  DEVICE_ARGS,
  deviceOf,
  expectKnown,
  integer,
  integers,
  oneOf,
  OUTPUT_ARGS,
  repeated,
  SET_ARG,
} from "./args.ts";
import { mebibytes, progress, result } from "./ui.ts";

const DTYPES = ["f32", "bf16", "f16", "f64"] as const;
const PASSES = ["fwd", "jvp", "vjp"] as const;

const COMMON = {
  repeats: { type: "string", description: "samples whose median is taken (default 20)", valueHint: "N" },
  ceiling: {
    type: "string",
    description: "rate to compare with, TFLOP/s or GB/s (default: measured here)",
    valueHint: "RATE",
  },
  dtype: {
    type: "string",
    description: "f32, bf16, f16 or f64 (default: bf16 on a GPU, f32 on a CPU)",
    valueHint: "DTYPE",
  },
  ...DEVICE_ARGS,
  ...OUTPUT_ARGS,
} as const satisfies ArgsDef;

const BITS = {
  deterministic: {
    type: "boolean",
    default: true,
    description: "the same bits every run; --no-deterministic lets backward sum in any order where that is faster",
  },
} as const satisfies ArgsDef;

const MODEL = {
  model: {
    type: "string",
    description: `${Object.keys(benchModels()).join(", ")} (default: wan-1.3b on a GPU, wan-digits on a CPU)`,
    valueHint: "MODEL",
  },
  layers: { type: "string", description: "run fewer blocks than the model has", valueHint: "N" },
  latent: { type: "string", description: "channels x frames x rows x columns, as 16x20x60x104", valueHint: "CxTxYxX" },
  batch: { type: "string", default: "1", description: "samples", valueHint: "N" },
  residual: {
    type: "string",
    description: "storage of the residual stream, f32 or bf16 (default f32; f64 beside f64)",
    valueHint: "DTYPE",
  },
  checkpoint: {
    type: "string",
    default: "block",
    description: `what backward recomputes: ${CHECKPOINT_MODES.join(", ")}`,
    valueHint: "MODE",
  },
} as const satisfies ArgsDef;

type Values = Record<string, unknown>;
const text = (a: Values, name: string): string | undefined =>
  a[name] === undefined || a[name] === "" ? undefined : String(a[name]);
const number = (a: Values, name: string, otherwise: number): number =>
  text(a, name) === undefined ? otherwise : integer(String(a[name]), name, 1);
const sizes = (value: string, flag: string, parts: number): number[] => {
  const found = value.split("x").map((t) => integer(t, flag, 1));
  if (found.length !== parts)
    throw new RcmError("E_ARG", `--${flag}: found "${value}", wanted ${parts} numbers joined by x`, { op: "usage" });
  return found;
};

interface Setting {
  device: Device;
  dtype: DType;
  timing: TimeOptions;
  /** The rate of --ceiling, or what `measure` finds. */
  ceiling: (measure: () => number) => number;
}

const line = (r: BenchRow): string =>
  [
    r.name.padEnd(38),
    r.shape.padEnd(28),
    r.ms > 0 ? `${r.ms < 10 ? r.ms.toFixed(4) : r.ms.toFixed(2)} ms` : "",
    r.tflops === undefined ? "" : `${r.tflops.toPrecision(4)} TFLOP/s`,
    r.gbs === undefined ? "" : `${r.gbs.toPrecision(4)} GB/s`,
    r.ratio === undefined ? "" : `${(100 * r.ratio).toFixed(1)} % of ${(r.ceiling as number).toPrecision(4)}`,
    r.bytesPeak === undefined ? "" : `peak ${mebibytes(r.bytesPeak)}`,
    r.valueError === undefined ? "" : `value ${r.valueError.toExponential(2)}`,
    r.tangentError === undefined ? "" : `tangent ${r.tangentError.toExponential(2)}`,
  ].filter((part) => part !== "").join("  ");

/** Opens the device, runs, and prints the report. */
function measure(what: string, a: Values, raw: string[], known: ArgsDef, body: (s: Setting) => BenchRow[]): void {
  expectKnown(raw, known);
  using device = Device.open({ device: deviceOf(String(a.device)), threads: integer(String(a.threads), "threads") });
  const { kind, info } = device.backend;
  if (a.deterministic === false) device.setDeterministic(false);
  const dtype = oneOf(text(a, "dtype") ?? (kind === "cuda" ? "bf16" : "f32"), "dtype", DTYPES);
  const given = text(a, "ceiling");
  const rate = given === undefined ? null : Number(given);
  if (rate !== null && !(rate > 0))
    throw new RcmError("E_ARG", `--ceiling: found "${given}", wanted a positive rate`, { op: "usage" });
  const timing = { ...TIMING, repeats: number(a, "repeats", TIMING.repeats) };
  const rows = body({ device, dtype, timing, ceiling: (find) => rate ?? find() });
  const report: BenchReport = { device: `${info.device}${info.isa ? ` ${info.isa}` : ""}`, what, rows };
  result(Boolean(a.json), report, [`${report.device}: ${what}`, ...rows.map(line)].join("\n"));
}

function networkSize(a: Values, { device, dtype }: Setting): NetworkSize {
  const models = benchModels();
  const name = oneOf(
    text(a, "model") ?? (device.backend.kind === "cuda" ? Object.keys(models)[0] : DIGITS_NET),
    "model",
    Object.keys(models),
  );
  const {
    spec: { family, config },
    latent,
  } = models[name];
  const shape = text(a, "latent") === undefined ? latent : sizes(String(a.latent), "latent", 4);
  const [, T, Y, X] = shape;
  const [pt, py, px] = config.patch;
  if (T % pt !== 0 || Y % py !== 0 || X % px !== 0)
    throw new RcmError(
      "E_ARG",
      `--latent: found "${shape.join("x")}", wanted whole patches of ${config.patch.join("x")}`,
      { op: "usage" },
    );
  const residual = dtype === "f64" ? "f64" : oneOf(text(a, "residual") ?? "f32", "residual", ["f32", "bf16"]);
  const checkpoint = oneOf(text(a, "checkpoint") ?? "block", "checkpoint", CHECKPOINT_MODES);
  const spec = netSpec(
    family,
    family.resize(config, { layers: number(a, "layers", config.layers), channels: shape[0] }),
  );
  return { spec, batch: number(a, "batch", 1), latent: shape, dtype, residual, checkpoint };
}

const matmuls = (s: Setting): number => s.ceiling(() => matmulCeiling(s.device, s.dtype, s.timing));

const network = (
  what: string,
  description: string,
  more: ArgsDef,
  body: (s: Setting, size: NetworkSize, a: Values) => BenchRow[],
) => {
  const args = { ...MODEL, ...more, ...COMMON } as ArgsDef;
  return defineCommand({
    meta: { name: what, description },
    args,
    run: ({ args: a, rawArgs }) =>
      measure(what, a as Values, rawArgs, args, (s) => body(s, networkSize(a as Values, s), a as Values)),
  });
};

const passesOf = (a: Values): Pass[] =>
  text(a, "pass") === undefined
    ? [...PASSES]
    : String(a.pass)
        .split(",")
        .map((p) => oneOf(p, "pass", PASSES));

const gemmArgs = {
  shape: {
    type: "string",
    description: "M x N x K of y[M,N] = x[M,K] w[N,K]^T, comma-separated list (default: a square one and the model's)",
    valueHint: "MxNxK",
  },
  pass: { type: "string", description: "fwd, jvp, vjp, comma-separated (default all)", valueHint: "PASS" },
  ...MODEL,
  ...COMMON,
} as const satisfies ArgsDef;
const gemm = defineCommand({
  meta: { name: "gemm", description: "Time linear layers.\n\n  rcm bench gemm --shape 8192x8192x8192 --pass fwd" },
  args: gemmArgs,
  run: ({ args: a, rawArgs }) =>
    measure("gemm", a, rawArgs, gemmArgs, (s) => {
      const square = s.device.backend.kind === "cuda" ? 8192 : 1024;
      const given = text(a, "shape")
        ?.split(",")
        .map((one): GemmShape => {
          const [M, N, K] = sizes(one, "shape", 3);
          return { M, N, K };
        });
      return benchGemm(
        s.device,
        given ?? [{ M: square, N: square, K: square }, ...gemmShapes(networkSize(a, s))],
        passesOf(a),
        s.dtype,
        matmuls(s),
        s.timing,
      );
    }),
});

const copyArgs = {
  mib: { type: "string", description: "sizes in MiB, comma-separated", valueHint: "N" },
  ...COMMON,
} as const satisfies ArgsDef;
const copy = defineCommand({
  meta: {
    name: "copy",
    description: "Time copies within the device: the bandwidth that elementwise work is compared with.",
  },
  args: copyArgs,
  run: ({ args: a, rawArgs }) =>
    measure("copy", a, rawArgs, copyArgs, (s) => {
      const mib =
        text(a, "mib") === undefined
          ? s.device.backend.kind === "cuda"
            ? [1, 16, 64, 256, 1024, 4096]
            : [1, 16, 256]
          : integers(String(a.mib), "mib");
      return benchCopy(
        s.device,
        mib.map((n) => n * 2 ** 20),
        text(a, "ceiling") === undefined ? null : s.ceiling(() => 0),
        s.timing,
      );
    }),
});

const loadArgs = {
  path: {
    type: "positional",
    required: false,
    description: "checkpoint in any format (default: one of full size is written for the run)",
  },
  preset: {
    type: "string",
    default: Object.keys(allPresets())[0],
    description: `network of the file that is written: ${Object.keys(allPresets()).join(", ")}`,
    valueHint: "NAME",
  },
  stored: { type: "string", default: "bf16", description: "dtype of the file that is written", valueHint: "DTYPE" },
  format: { type: "string", default: "pth", description: "its format: pth or safetensors", valueHint: "FORMAT" },
  ...COMMON,
  repeats: { type: "string", description: "loads; the first may come from the disk (default 5)", valueHint: "N" },
} as const satisfies ArgsDef;
const load = defineCommand({
  meta: {
    name: "load",
    description:
      "Time the loading of a checkpoint into its network; peak is host memory of this process.\n\n  rcm bench load --preset wan2.1-1.3b --format pth",
  },
  args: loadArgs,
  run: ({ args: a, rawArgs }) =>
    measure("load", a, rawArgs, loadArgs, (s) =>
      benchLoad(s.device, {
        path: text(a, "path") ?? null,
        preset: oneOf(String(a.preset), "preset", Object.keys(allPresets())),
        stored: oneOf(String(a.stored), "stored", DTYPES),
        format: oneOf(String(a.format), "format", ["pth", "safetensors"]),
        dtype: s.dtype,
        repeats: number(a, "repeats", 5),
      }),
    ),
});

const attentionArgs = {
  heads: {
    type: "string",
    description: "heads (with --lq: one shape; without: the table of the design)",
    valueHint: "N",
  },
  lq: { type: "string", description: "queries", valueHint: "N" },
  lk: { type: "string", description: "keys (default: as queries)", valueHint: "N" },
  dim: { type: "string", description: "head width", valueHint: "N" },
  batch: { type: "string", default: "1", description: "samples", valueHint: "N" },
  tangents: {
    type: "string",
    description: "inputs with a tangent: q,k,v or a part of them, or none",
    valueHint: "LIST",
  },
  pass: { type: "string", description: "fwd, jvp, vjp, comma-separated (default all)", valueHint: "PASS" },
  ...BITS,
  ...COMMON,
} as const satisfies ArgsDef;

function tangentsOf(value: string | undefined): AttentionInputs | null {
  if (value === undefined) return null;
  const named = value === "none" ? [] : value.split(",").map((n) => oneOf(n, "tangents", ["q", "k", "v"]));
  return { q: named.includes("q"), k: named.includes("k"), v: named.includes("v") };
}

const attention = defineCommand({
  meta: {
    name: "attention",
    description: "Time attention.\n\n  rcm bench attention --heads 12 --lq 32760 --dim 128 --pass jvp",
  },
  args: attentionArgs,
  run: ({ args: a, rawArgs }) =>
    measure("attention", a, rawArgs, attentionArgs, (s) => {
      const lq = number(a, "lq", 0);
      const tangents = tangentsOf(text(a, "tangents"));
      const one = {
        batch: number(a, "batch", 1),
        heads: number(a, "heads", 12),
        lq,
        lk: number(a, "lk", lq),
        dim: number(a, "dim", 128),
      };
      const shapes = lq > 0 ? [{ shape: one, tangents: ALL_INPUTS }] : ATTENTION_SHAPES[s.device.backend.kind];
      const top = matmuls(s);
      return shapes.flatMap(({ shape, tangents: usual }) =>
        passesOf(a).map((pass) => benchAttention(s.device, shape, pass, tangents ?? usual, s.dtype, top, s.timing)),
      );
    }),
});

const ops = network(
  "ops",
  "Time every fused elementwise op at a model's size, beside the measured copy bandwidth.",
  {},
  (s, size) =>
    benchOps(
      s.device,
      size,
      s.ceiling(() => copyCeiling(s.device, s.timing)),
      s.timing,
    ),
);
const forward = network(
  "forward",
  "Time the teacher's forward pass.\n\n  rcm bench forward --model wan-1.3b --residual bf16",
  {},
  (s, size) => benchForward(s.device, size, matmuls(s), s.timing),
);
const jvp = network(
  "jvp",
  "Time value and tangent in one pass.\n\n  rcm bench jvp --model wan-1.3b --backward",
  { backward: { type: "boolean", default: false, description: "also backward with recompute" }, ...BITS },
  (s, size, a) => benchJvp(s.device, size, Boolean(a.backward), matmuls(s), s.timing),
);
const sample = network(
  "sample",
  "Time few-step sampling of latents.",
  { steps: { type: "string", default: "1,2,4", description: "numbers of steps, comma-separated", valueHint: "LIST" } },
  (s, size, a) => benchSample(s.device, size, integers(String(a.steps), "steps"), matmuls(s), s.timing),
);

const vaeArgs = {
  model: {
    type: "string",
    description: `${Object.keys(benchVaes()).join(", ")} (default: wan2.1-vae on a GPU, wan-vae-small on a CPU)`,
    valueHint: "MODEL",
  },
  frames: { type: "string", description: "frames, 1 + 4n (default 81 on a GPU, 5 on a CPU)", valueHint: "N" },
  size: { type: "string", description: "rows x columns (default 480x832 on a GPU, 32x48 on a CPU)", valueHint: "YxX" },
  pass: { type: "string", default: "decode,encode", description: "decode, encode, comma-separated", valueHint: "PASS" },
  layers: { type: "boolean", default: false, description: "also a row for each kind of layer" },
  chunk: { type: "string", description: "latent frames of a piece (default: by memory)", valueHint: "N" },
  tile: {
    type: "string",
    description: "side of a tile x overlap, in latent cells, as 32x8 (default: no tiles)",
    valueHint: "NxM",
  },
  ...COMMON,
} as const satisfies ArgsDef;
const vae = defineCommand({
  meta: { name: "vae", description: "Time the video autoencoder over random weights.\n\n  rcm bench vae --layers" },
  args: vaeArgs,
  run: ({ args: a, rawArgs }) =>
    measure("vae", a, rawArgs, vaeArgs, (s) => {
      const gpu = s.device.backend.kind === "cuda";
      const vaes = benchVaes();
      const size =
        vaes[
          oneOf(text(a, "model") ?? (gpu ? Object.keys(vaes)[0] : Object.keys(vaes)[1]), "model", Object.keys(vaes))
        ];
      const [rows, columns] = sizes(text(a, "size") ?? (gpu ? "480x832" : "32x48"), "size", 2);
      const frames = number(a, "frames", gpu ? 81 : 5);
      if (frames % 4 !== 1 || rows % 8 !== 0 || columns % 8 !== 0)
        throw new RcmError("E_ARG", `found ${frames}x${rows}x${columns}, wanted 1 + 4n frames and multiples of 8`, {
          op: "usage",
        });
      const tile = text(a, "tile") === undefined ? null : sizes(String(a.tile), "tile", 2);
      const passes = a.pass.split(",").map((p) => oneOf(p, "pass", ["decode", "encode"] as const));
      const chunk = text(a, "chunk") === undefined ? null : number(a, "chunk", 1);
      return benchVae(
        s.device,
        {
          ...size,
          frames,
          size: [rows, columns],
          dtype: s.dtype,
          chunk,
          tile: tile && { size: tile[0], overlap: tile[1] },
        },
        passes,
        a.layers,
        matmuls(s),
        s.timing,
      );
    }),
});

const errorArgs = {
  ...MODEL,
  dim: { type: "string", default: "256", description: "width of the small network", valueHint: "N" },
  precise: { type: "boolean", default: false, description: "f32-grade arithmetic over the same weights" },
  full: {
    type: "boolean",
    default: false,
    description: "the network at its own size, against its f32-grade pass on the same device",
  },
  ...COMMON,
} as const satisfies ArgsDef;
const error = defineCommand({
  meta: {
    name: "jvp-error",
    description:
      "Errors of value and tangent, block by block, of a small network of a model's kind against f64 on the CPU.\n\n  rcm bench jvp-error --dtype bf16 --residual f32",
  },
  args: errorArgs,
  run: ({ args: a, rawArgs }) =>
    measure("jvp-error", a, rawArgs, errorArgs, (s) => {
      if (a.full) {
        const whole = networkSize(a, s);
        return jvpErrorLarge(s.device, whole.spec, whole);
      }
      const size = networkSize(
        {
          ...a,
          model: text(a, "model") ?? Object.keys(benchModels())[0],
          latent: text(a, "latent") ?? (a.model === DIGITS_NET ? "1x1x28x28" : "16x3x16x24"),
        },
        s,
      );
      return jvpError(s.device, {
        spec: size.spec,
        layers: number(a, "layers", 6),
        dim: number(a, "dim", 256),
        latent: size.latent,
        dtype: s.dtype,
        residual: size.residual,
        precise: a.precise,
      });
    }),
});

const stepArgs = {
  recipe: { type: "positional", required: false, description: "recipe file; its weights and data are not read" },
  ...SET_ARG,
  ...MODEL,
  ...BITS,
  objective: {
    type: "string",
    default: "scm",
    description:
      "step of a model: scm (in parts) or rcm (with the score regularizer, critic and every optimizer state)",
    valueHint: "KIND",
  },
  ...COMMON,
  repeats: {
    type: "string",
    description: "timed cycles of a recipe after two of warm-up (default 8), or samples of a model (default 20)",
    valueHint: "N",
  },
} as const satisfies ArgsDef;
const step = defineCommand({
  meta: {
    name: "step",
    description:
      "Time training iterations on random data: of a recipe, against OpenBLAS' own matmul rate, or an sCM or rCM step of a model.\n\n  rcm bench step recipes/digits/rcm.yaml\n  rcm bench step --model wan-1.3b",
  },
  args: stepArgs,
  run({ args: a, rawArgs }) {
    if (a.model !== undefined && a.recipe === undefined)
      return measure("step", a, rawArgs, stepArgs, (s) =>
        (oneOf(a.objective, "objective", ["scm", "rcm"]) === "scm" ? benchStudentStep : benchRcmStep)(
          s.device,
          networkSize(a, s),
          matmuls(s),
          s.timing,
        ),
      );
    expectKnown(rawArgs, stepArgs);
    if (a.recipe === undefined || a.model !== undefined)
      throw new RcmError("E_ARG", "give either a recipe or --model", { op: "usage" });
    const view = progress(a.quiet);
    const b = benchStep(
      loadRecipe(a.recipe, [...repeated(rawArgs, "set"), ...(a.deterministic ? [] : ["train.deterministic=false"])]),
      {
        device: deviceOf(a.device),
        threads: integer(a.threads, "threads"),
        repeats: number(a, "repeats", 8),
        onEvent: (t) => view.update(Number(t.split("/")[0]), Number(t.split("/")[1]), "iterations", 10),
      },
    );
    view.end();
    const row = (name: string, r: StepRow): string =>
      `${name.padEnd(8)} ${r.ms.toFixed(0).padStart(6)} ms  ${r.gflop.toFixed(1).padStart(7)} GFLOP  ${r.gflops.toFixed(0).padStart(5)} GFLOP/s\n`;
    const ratio =
      b.ratio === null || b.openblas === null
        ? "OpenBLAS is not installed: no ratio"
        : `OpenBLAS 2048^3 on ${b.threads} threads ${(b.openblas / 1e9).toFixed(0)} GFLOP/s; the step runs at ${(100 * b.ratio).toFixed(0)} % of it`;
    result(
      a.json,
      b,
      `${b.recipe}: batch ${b.batch}, ${b.tokens} tokens, ${b.device} ${b.isa}, ${b.threads} threads\n${Object.entries(
        b.turns,
      )
        .map(([role, r]) => row(role, r))
        .join(
          "",
        )}whole    ${(b.rate / 1e9).toFixed(0)} GFLOP/s, peak memory ${mebibytes(b.peakBytes)}\n${ratio}${b.recorded ? `\nevaluations are recorded: ${b.recorded.gpuMs.toFixed(2)} of the ${b.recorded.iterationMs.toFixed(2)} ms of an average iteration are the GPU's own time in them` : ""}`,
    );
  },
});

export default defineCommand({
  meta: { name: "bench", description: "Measure speed and accuracy" },
  subCommands: { gemm, copy, load, attention, ops, forward, jvp, step, sample, vae, "jvp-error": error },
});
