import { defineCommand } from "citty";
import { OUT_DTYPES } from "../core/export/convert.ts";
import { FORMATS } from "../core/export/formats.ts";
import { PATCH_FORMS } from "../core/models/family.ts";
import { exportWeights, SHARD_BYTES, type ExportProgress, type ExportSummary } from "../core/export/run.ts";
import {
  DEVICE_ARGS,
  deviceOf,
  expectKnown,
  flag,
  integer,
  oneOf,
  option,
  OUTPUT_ARGS,
  requiredOption,
  usage,
} from "./args.ts";
import { mebibytes, progress, result, seconds } from "./ui.ts";
import { WEIGHT_KINDS } from "../core/models/layout.ts";

const args = {
  weights: {
    type: "positional",
    required: false,
    description: "run folder, checkpoint, or weights of any format that can be read",
    valueHint: "WEIGHTS",
  },
  out: requiredOption("file (.safetensors, .pth, .pt), or folder for diffusers and dcp", "PATH"),
  format: option(
    "original (by the file's ending), diffusers, comfyui or dcp; of a LoRA comfyui or diffusers",
    "FORMAT",
  ),
  dtype: option(
    "bf16, f16, f32 or f8_e4m3 (matrices of the blocks, each with a scale; the rest bf16)",
    "DTYPE",
    "bf16",
  ),
  kind: option("weights of a run: ema or student", "KIND", "ema"),
  prefix: option("put before every key instead of the format's prefix, for example net.", "TEXT"),
  patch: option("patch embedding as conv3d or linear instead of the format's form", "FORM"),
  "shard-size": option("largest weight file of a diffusers folder, in GB", "GB", String(SHARD_BYTES / 1e9)),
  lora: option("write the difference to these base weights as a LoRA", "BASE"),
  rank: option("rank of a LoRA", "N", "64"),
  merge: option("write TARGET + weight * (WEIGHTS - base), with --base", "TARGET"),
  student: option("the same as WEIGHTS", "WEIGHTS"),
  base: option("what WEIGHTS were distilled from, for --merge", "BASE"),
  weight: option("factor of the difference, for --merge", "W", "1"),
  force: flag("replace an existing output folder"),
  ...DEVICE_ARGS,
  ...OUTPUT_ARGS,
} as const;

function number(text: string, flag: string): number {
  const n = Number(text);
  if (text.trim() === "" || !Number.isFinite(n)) throw usage(`--${flag}: found "${text}", allowed a number`);
  return n;
}

const percent = (v: number): string => `${(100 * v).toPrecision(3)} %`;

function describeMerge({ merged, kept, unused }: NonNullable<ExportSummary["merge"]>): string[] {
  return [
    `merged ${merged} tensors; ${kept.length} stay the target's; ${unused.length} of the student have no place`,
    ...kept.map(({ name, why }) => `  kept ${name}: ${why}`),
    ...unused.map((name) => `  unused ${name}`),
  ];
}

function describeLora(l: NonNullable<ExportSummary["lora"]>): string[] {
  const factors = `rank ${l.rank}, ${l.layers.length} layers, error ${percent(l.error)} of the difference`;
  const others = `${l.differences} plain differences, ${l.equal} parameters equal, ${l.dropped.length} dropped`;
  const change = (v: number | null): string => (v === null ? "" : `, change ${percent(v)}`);
  return [
    `${factors}; ${others}`,
    ...l.layers.map((m) => `  ${m.name}: rank ${m.rank}, error ${percent(m.error)}${change(m.change)}`),
    ...l.dropped.map((d) => `  dropped ${d.name}: ${d.why}${change(d.change)}`),
  ];
}

/** The summary as text. */
function describe(s: ExportSummary): string {
  const contents = `${s.format}, ${s.dtype}, ${s.tensors} tensors, ${s.parameters.toLocaleString("en")} parameters`;
  const files = `${mebibytes(s.bytes)} in ${s.files.length} file${s.files.length === 1 ? "" : "s"}`;
  const lines = [
    `${s.out}: ${contents}, ${files}, ${seconds(s.seconds)}, read back and equal (from ${s.source})`,
  ];
  if (s.rounding && s.rounding.relative > 0) {
    const { relative, worst } = s.rounding;
    const most = `${percent(worst?.relative ?? 0)} (${worst?.name})`;
    lines.push(`rounding: ${percent(relative)} of the weights' norm, at most ${most}`);
  }
  if (s.merge) lines.push(...describeMerge(s.merge));
  if (s.lora) lines.push(...describeLora(s.lora));
  return lines.join("\n");
}

function progressWords({ stage, done, total, seconds: s }: ExportProgress): string {
  if (stage === "lora") return `${done} of ${total} parameters`;
  const speed = s > 0 && stage === "write" ? `, ${(done / 1e9 / s).toFixed(2)} GB/s` : "";
  return `${stage}, ${mebibytes(done)} of ${mebibytes(total)}${speed}`;
}

export default defineCommand({
  meta: {
    name: "export",
    description: `Write weights in the formats that other software loads; the output is read back and compared.

  rcm export runs/rcm --out rcm.safetensors                              original Wan keys; .pth and .pt too
  rcm export runs/rcm --out wan-rcm --format diffusers                   wan-rcm/transformer for WanTransformer3DModel
  rcm export runs/rcm --out rcm-f8.safetensors --format comfyui --dtype f8_e4m3
  rcm export runs/rcm --out rcm-dcp --format dcp                         torch.distributed.checkpoint, keys net.*
  rcm export runs/rcm --lora Wan2.1-T2V-1.3B --rank 64 --out lora.safetensors
  rcm export --merge Wan2.2-I2V-high --student rcm-14b.pth --base Wan2.1-T2V-14B --weight 1 --out merged.safetensors`,
  },
  args,
  run({ args: a, rawArgs }) {
    expectKnown(rawArgs, args);
    if (a.weights && a.student) throw usage("WEIGHTS and --student are the same; give one");
    const weights = a.weights || a.student;
    if (!weights) throw usage("WEIGHTS are missing");
    if (a.lora && a.merge) throw usage("--lora and --merge are two exports");
    if (Boolean(a.merge) !== Boolean(a.base)) throw usage("--merge and --base go together");
    const shown = progress(a.quiet);
    let last = 0;
    const summary = exportWeights({
      weights,
      out: a.out,
      kind: oneOf(a.kind, "kind", WEIGHT_KINDS),
      format: a.format === undefined ? null : oneOf(a.format, "format", FORMATS),
      dtype: oneOf(a.dtype, "dtype", OUT_DTYPES),
      prefix: a.prefix ?? null,
      patch: a.patch === undefined ? null : oneOf(a.patch, "patch", PATCH_FORMS),
      shardBytes: Math.max(1, number(a["shard-size"], "shard-size") * 1e9),
      force: a.force,
      metadata: { weights: a.kind },
      lora: a.lora ? { base: a.lora, rank: integer(a.rank, "rank", 1) } : null,
      merge: a.merge && a.base ? { target: a.merge, base: a.base, weight: number(a.weight, "weight") } : null,
      device: { device: deviceOf(a.device), threads: integer(a.threads, "threads") },
      onProgress(p) {
        const percentDone = Math.floor((100 * p.done) / Math.max(1, p.total));
        if (percentDone === last) return;
        last = percentDone;
        shown.update(percentDone, 100, progressWords(p), 10);
      },
    });
    shown.end();
    result(a.json, summary, describe(summary));
  },
});
