import { defineCommand } from "citty";
import { synthRun } from "../core/synth/run.ts";
import { parseShard } from "../core/io/shard.ts";
import {
  decimal,
  DEVICE_ARGS,
  deviceOf,
  expectKnown,
  integer,
  integers,
  oneOf,
  option,
  OUTPUT_ARGS,
  requiredOption,
  usage,
  withExamples,
} from "./args.ts";
import { TEACHER_SAMPLERS } from "../core/samplers/list.ts";
import { EXIT_HELP } from "./exit.ts";
import { stopSignals } from "./signals.ts";
import { mebibytes, progress, result, seconds, truncations } from "./ui.ts";
import { TIME_PRECISIONS } from "../core/models/family.ts";

const EMBED_SOURCES = "a folder of 000000000.embed.pt files or of shards, or a file of [n, tokens, width]";

const args = {
  weights: requiredOption("checkpoint of the teacher (.pth, .safetensors, diffusers or DCP folder)", "PATH"),
  prompts: requiredOption("file with a prompt a line", "FILE"),
  out: requiredOption("folder of the shards; the same command resumes where it stopped", "DIR"),
  limit: option("most prompts; 0: all", "N", "0"),
  "text-encoder": option("checkpoint of the umT5-xxl encoder", "PATH"),
  tokenizer: option("its tokenizer.json or sentencepiece model", "FILE"),
  "text-cache": option("folder that keeps embeddings of prompts", "DIR"),
  embeds: option(`precomputed embeddings: ${EMBED_SOURCES}`, "PATH"),
  "negative-prompt": option("negative prompt of the guidance", "TEXT", ""),
  "negative-embeds": {
    ...option("torch file with its embedding, in place of --negative-prompt", "FILE"),
    alias: "negative-embed",
  },
  shape: option("latent shape: channels, frames, rows, columns (81 frames of 832x480)", "C,T,Y,X", "16,21,60,104"),
  sampler: option("euler or unipc", "KIND", "euler"),
  steps: option("steps of the teacher", "N", "100"),
  "sigma-max": option("noise level of the first step", "X", "5000"),
  shift: option("shift of the times", "X", "3"),
  guidance: option("guidance scale; 1: no negative prompt", "X", "5"),
  seed: option("sample i starts from noise of seed + i", "N", "0"),
  dtype: option("weights and activations: bf16 or f32", "DTYPE", "bf16"),
  residual: option("residual stream: bf16 or f32", "DTYPE", "f32"),
  time: option("times of the network: exact, or bf16 as the public code rounds them", "KIND", "exact"),
  batch: option("prompts per batch; does not change their noise", "N", "1"),
  "per-shard": option("samples per shard", "N", "256"),
  shard: option("job i of n in a job array: takes every n-th shard", "I/N", "0/1"),
  ...DEVICE_ARGS,
  ...OUTPUT_ARGS,
} as const;

export default defineCommand({
  meta: {
    name: "synth",
    description: [
      withExamples(
        "Run a teacher over prompts into webdataset shards, in the public format and with its settings.",
        "rcm data synth --weights Wan2.1-T2V-14B.pth --prompts prompts.txt --text-encoder umt5.pth \\",
        "  --tokenizer tokenizer.json --negative-embeds negative.pt --out data/wan",
        'rcm data synth ... --shard "$SLURM_ARRAY_TASK_ID/8"      # in a job array; requeue on exit 75',
      ),
      EXIT_HELP,
    ].join("\n\n"),
  },
  args,
  async run({ args: a, rawArgs }) {
    expectKnown(rawArgs, args);
    const encoder =
      a["text-encoder"] === undefined
        ? null
        : { weights: a["text-encoder"], tokenizer: a.tokenizer ?? "", cache: a["text-cache"] ?? null };
    if (encoder && encoder.tokenizer === "")
      throw usage("--text-encoder goes with --tokenizer");
    if (a["negative-embeds"] !== undefined && a["negative-prompt"] !== "")
      throw usage("--negative-prompt and --negative-embeds exclude each other");
    const shape = integers(a.shape, "shape");
    if (shape.length !== 4)
      throw usage(`--shape: found "${a.shape}", allowed four whole numbers`);
    const stop = stopSignals();
    const view = progress(a.quiet);
    try {
      const { truncated, onTruncated } = truncations();
      const s = await synthRun({
        weights: a.weights,
        prompts: a.prompts,
        limit: integer(a.limit, "limit"),
        out: a.out,
        embeds: a.embeds ?? null,
        encoder,
        negativeEmbed: a["negative-embeds"] ?? null,
        negativePrompt: a["negative-prompt"],
        shape,
        sampler: {
          kind: oneOf(a.sampler, "sampler", TEACHER_SAMPLERS),
          steps: integer(a.steps, "steps", 1),
          sigmaMax: decimal(a["sigma-max"], "sigma-max", 0.001),
          shift: decimal(a.shift, "shift", 0.001),
          guidance: decimal(a.guidance, "guidance", 1),
          seed: integer(a.seed, "seed"),
        },
        time: oneOf(a.time, "time", TIME_PRECISIONS),
        dtype: oneOf(a.dtype, "dtype", ["bf16", "f32"]),
        residual: oneOf(a.residual, "residual", ["bf16", "f32"]),
        batch: integer(a.batch, "batch", 1),
        perShard: integer(a["per-shard"], "per-shard", 1),
        job: parseShard(a.shard),
        device: deviceOf(a.device),
        threads: integer(a.threads, "threads"),
        shouldStop: stop.requested,
        onTruncated,
        onStage: (text) => view.line(text),
        onEvent: (done, total, each) =>
          view.update(done, total, `samples, ${seconds(each)} each, ${seconds(each * (total - done))} left`),
      });
      view.end();
      const made = `${s.samples} samples in ${s.shards} shards in ${s.out} (${s.kept} kept from before)`;
      const cost = `${seconds(s.secondsPerSample)} each, peak memory ${mebibytes(s.peakBytes)}`;
      result(a.json, { ...s, truncated }, `${made}, ${cost}`);
    } finally {
      view.end();
      stop.restore();
    }
  },
});
