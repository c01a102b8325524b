import { defineCommand } from "citty";
import { OUT_DTYPES } from "../core/export/convert.ts";
import { FORMATS } from "../core/export/formats.ts";
import { PATCH_FORMS } from "../core/models/family.ts";
import { exportWeights, SHARD_BYTES, type ExportSummary } from "../core/export/run.ts";
import { RcmError } from "../core/error.ts";
import { DEVICE_ARGS, deviceOf, expectKnown, integer, oneOf, OUTPUT_ARGS } from "./args.ts";
import { mebibytes, progress, result, seconds } from "./ui.ts";

const args = {
  weights: {
    type: "positional",
    required: false,
    description: "run folder, checkpoint, or weights of any format that can be read",
    valueHint: "WEIGHTS",
  },
  out: {
    type: "string",
    required: true,
    description: "file (.safetensors, .pth, .pt), or folder for diffusers and dcp",
    valueHint: "PATH",
  },
  format: {
    type: "string",
    description: "original (by the file's ending), diffusers, comfyui or dcp; of a LoRA comfyui or diffusers",
    valueHint: "FORMAT",
  },
  dtype: {
    type: "string",
    default: "bf16",
    description: "bf16, f16, f32 or f8_e4m3 (matrices of the blocks, each with a scale; the rest bf16)",
    valueHint: "DTYPE",
  },
  kind: { type: "string", default: "ema", description: "weights of a run: ema or student", valueHint: "KIND" },
  prefix: {
    type: "string",
    description: "put before every key instead of the format's own, for example net.",
    valueHint: "TEXT",
  },
  patch: {
    type: "string",
    description: "patch embedding as conv3d or linear instead of the format's own form",
    valueHint: "FORM",
  },
  "shard-size": {
    type: "string",
    default: String(SHARD_BYTES / 1e9),
    description: "largest weight file of a diffusers folder, in GB",
    valueHint: "GB",
  },
  lora: { type: "string", description: "write the difference to these base weights as a LoRA", valueHint: "BASE" },
  rank: { type: "string", default: "64", description: "rank of a LoRA", valueHint: "N" },
  merge: { type: "string", description: "write TARGET + weight * (WEIGHTS - base), with --base", valueHint: "TARGET" },
  student: { type: "string", description: "the same as WEIGHTS", valueHint: "WEIGHTS" },
  base: { type: "string", description: "what WEIGHTS were distilled from, for --merge", valueHint: "BASE" },
  weight: { type: "string", default: "1", description: "factor of the difference, for --merge", valueHint: "W" },
  force: { type: "boolean", default: false, description: "replace an output folder that is there" },
  ...DEVICE_ARGS,
  ...OUTPUT_ARGS,
} as const;

const usage = (message: string): RcmError => new RcmError("E_ARG", message, { op: "usage" });

function number(text: string, flag: string): number {
  const n = Number(text);
  if (text.trim() === "" || !Number.isFinite(n)) throw usage(`--${flag}: found "${text}", allowed a number`);
  return n;
}

const percent = (v: number): string => `${(100 * v).toPrecision(3)} %`;

/** What a person reads. */
function describe(s: ExportSummary): string {
  const lines = [
    `${s.out}: ${s.format}, ${s.dtype}, ${s.tensors} tensors, ${s.parameters.toLocaleString("en")} parameters, ${mebibytes(s.bytes)} in ${s.files.length} file${s.files.length === 1 ? "" : "s"}, ${seconds(s.seconds)}, read back and equal (from ${s.source})`,
  ];
  if (s.rounding && s.rounding.relative > 0)
    lines.push(
      `rounding: ${percent(s.rounding.relative)} of the weights' norm, at most ${percent(s.rounding.worst?.relative ?? 0)} (${s.rounding.worst?.name})`,
    );
  if (s.merge) {
    lines.push(
      `merged ${s.merge.merged} tensors; ${s.merge.kept.length} stay the target's; ${s.merge.unused.length} of the student have no place`,
    );
    for (const { name, why } of s.merge.kept) lines.push(`  kept ${name}: ${why}`);
    for (const name of s.merge.unused) lines.push(`  unused ${name}`);
  }
  if (s.lora) {
    lines.push(
      `rank ${s.lora.rank}, ${s.lora.layers.length} layers, error ${percent(s.lora.error)} of the difference; ${s.lora.differences} plain differences, ${s.lora.equal} parameters equal, ${s.lora.dropped.length} dropped`,
    );
    for (const l of s.lora.layers)
      lines.push(`  ${l.name}: rank ${l.rank}, error ${percent(l.error)}, change ${percent(l.change)}`);
    for (const d of s.lora.dropped)
      lines.push(`  dropped ${d.name}: ${d.why}${d.change === null ? "" : `, change ${percent(d.change)}`}`);
  }
  return lines.join("\n");
}

export default defineCommand({
  meta: {
    name: "export",
    description: `Write weights as others load them; what is written is read back and compared.

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
      kind: oneOf(a.kind, "kind", ["ema", "student"]),
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
      onProgress({ stage, done, total, seconds: s }) {
        const percentDone = Math.floor((100 * done) / Math.max(1, total));
        if (percentDone === last) return;
        last = percentDone;
        const text =
          stage === "lora"
            ? `${done} of ${total} parameters`
            : `${stage}, ${mebibytes(done)} of ${mebibytes(total)}${s > 0 && stage === "write" ? `, ${(done / 1e9 / s).toFixed(2)} GB/s` : ""}`;
        shown.update(percentDone, 100, text, 10);
      },
    });
    shown.end();
    result(a.json, summary, describe(summary));
  },
});
