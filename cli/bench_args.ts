import { defineCommand, type ArgsDef, type ParsedArgs } from "citty";
import { matmulCeiling } from "../core/bench/gemm.ts";
import { benchModels, type NetworkSize } from "../core/bench/network.ts";
import { TIMING, type BenchReport, type BenchRow, type BenchSetting } from "../core/bench/time.ts";
import type { DType } from "../core/dtype.ts";
import { DIGITS_NET } from "../core/models/families.ts";
import { netSpec } from "../core/models/family.ts";
import { CHECKPOINT_MODES } from "../core/tape.ts";
import { Device } from "../core/tensor.ts";
import { DEVICE_ARGS, deviceOf, expectKnown, integer, oneOf, option, OUTPUT_ARGS, usage } from "./args.ts";
import { mebibytes, result } from "./ui.ts";

export const DTYPES = ["f32", "bf16", "f16", "f64"] as const;

export const COMMON_ARGS = {
  repeats: option("samples whose median is taken (default 20)", "N"),
  ceiling: option("rate to compare with, TFLOP/s or GB/s (default: measured here)", "RATE"),
  dtype: option("f32, bf16, f16 or f64 (default: bf16 on a GPU, f32 on a CPU)", "DTYPE"),
  ...DEVICE_ARGS,
  ...OUTPUT_ARGS,
} as const satisfies ArgsDef;

export const DETERMINISTIC_ARG = {
  deterministic: {
    type: "boolean",
    default: true,
    description: "the same bits every run; --no-deterministic lets backward sum in any order where that is faster",
  },
} as const satisfies ArgsDef;

const MODELS = Object.keys(benchModels());

export const MODEL_ARGS = {
  model: option(`${MODELS.join(", ")} (default: wan-1.3b on a GPU, wan-digits on a CPU)`, "MODEL"),
  layers: option("run fewer blocks than the model has", "N"),
  latent: option("channels x frames x rows x columns, as 16x20x60x104", "CxTxYxX"),
  batch: option("samples", "N", "1"),
  residual: option("storage of the residual stream, f32 or bf16 (default f32; f64 with --dtype f64)", "DTYPE"),
  checkpoint: option(`what backward recomputes: ${CHECKPOINT_MODES.join(", ")}`, "MODE", "block"),
} as const satisfies ArgsDef;

/** Parsed flags of any benchmark. */
export type Values = Record<string, unknown>;

export const given = (a: Values, name: string): string | undefined =>
  a[name] === undefined || a[name] === "" ? undefined : String(a[name]);

export const count = (a: Values, name: string, otherwise: number): number =>
  given(a, name) === undefined ? otherwise : integer(String(a[name]), name, 1);

/** Whole numbers joined by x. Throws: E_ARG. */
export function sizes(value: string, flag: string, parts: number): number[] {
  const found = value.split("x").map((t) => integer(t, flag, 1));
  if (found.length !== parts) throw usage(`--${flag}: found "${value}", wanted ${parts} numbers joined by x`);
  return found;
}

/** The setting of the flags; without --ceiling its ceiling is null, to be measured. */
export interface Setting extends BenchSetting {
  dtype: DType;
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

/** Opens the device that the flags name, measures, and prints the report. Throws: E_ARG. */
export function measure(what: string, a: Values, body: (s: Setting) => BenchRow[]): void {
  using device = Device.open({ device: deviceOf(String(a.device)), threads: integer(String(a.threads), "threads") });
  const { kind, info } = device.backend;
  if (a.deterministic === false) device.setDeterministic(false);
  const dtype = oneOf(given(a, "dtype") ?? (kind === "cuda" ? "bf16" : "f32"), "dtype", DTYPES);
  const rate = given(a, "ceiling");
  const ceiling = rate === undefined ? null : Number(rate);
  if (ceiling !== null && !(ceiling > 0)) throw usage(`--ceiling: found "${rate}", wanted a positive rate`);
  const timing = { ...TIMING, repeats: count(a, "repeats", TIMING.repeats) };
  const rows = body({ device, dtype, timing, ceiling });
  const report: BenchReport = { device: `${info.device}${info.isa ? ` ${info.isa}` : ""}`, what, rows };
  result(Boolean(a.json), report, [`${report.device}: ${what}`, ...rows.map(line)].join("\n"));
}

/** A benchmark as a command. */
export const benchCommand = <const A extends ArgsDef>(
  name: string,
  description: string,
  args: A,
  body: (s: Setting, a: ParsedArgs<A>) => BenchRow[],
) =>
  defineCommand({
    meta: { name, description },
    args,
    run({ args: a, rawArgs }) {
      expectKnown(rawArgs, args);
      measure(name, a, (s) => body(s, a));
    },
  });

/** A benchmark of a whole network as a command. */
export const networkCommand = <const A extends ArgsDef>(
  name: string,
  description: string,
  more: A,
  body: (s: Setting, size: NetworkSize, a: Values) => BenchRow[],
) =>
  benchCommand(name, description, { ...MODEL_ARGS, ...more, ...COMMON_ARGS }, (s, a) => body(s, networkSize(a, s), a));

/** The network that the flags describe. Throws: E_ARG. */
export function networkSize(a: Values, { device, dtype }: Setting): NetworkSize {
  const models = benchModels();
  const name = oneOf(given(a, "model") ?? (device.backend.kind === "cuda" ? MODELS[0] : DIGITS_NET), "model", MODELS);
  const { latent: usual, spec: model } = models[name];
  const { family, config } = model;
  const latent = given(a, "latent") === undefined ? usual : sizes(String(a.latent), "latent", 4);
  const [, T, Y, X] = latent;
  const [pt, py, px] = config.patch;
  if (T % pt !== 0 || Y % py !== 0 || X % px !== 0)
    throw usage(`--latent: found "${latent.join("x")}", wanted whole patches of ${config.patch.join("x")}`);
  const residual = dtype === "f64" ? "f64" : oneOf(given(a, "residual") ?? "f32", "residual", ["f32", "bf16"]);
  const checkpoint = oneOf(given(a, "checkpoint") ?? "block", "checkpoint", CHECKPOINT_MODES);
  const resized = family.resize(config, { layers: count(a, "layers", config.layers), channels: latent[0] });
  return { spec: netSpec(family, resized), batch: count(a, "batch", 1), latent, dtype, residual, checkpoint };
}

/** The setting with a matmul rate to compare with. */
export const againstMatmul = (s: Setting): BenchSetting => ({
  ...s,
  ceiling: s.ceiling ?? matmulCeiling(s.device, s.dtype, s.timing),
});
