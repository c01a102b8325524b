import { defineCommand } from "citty";
import { synthRun } from "../core/synth/run.ts";
import { RcmError } from "../core/error.ts";
import { parseShard } from "../core/io/shard.ts";
import { DEVICE_ARGS, decimal, deviceOf, expectKnown, integer, integers, oneOf, OUTPUT_ARGS } from "./args.ts";
import { TEACHER_SAMPLERS } from "../core/samplers/list.ts";
import { EXIT_HELP } from "./exit.ts";
import { stopSignals } from "./signals.ts";
import { mebibytes, progress, result, seconds, truncations } from "./ui.ts";

const args = {
  weights: {
    type: "string",
    required: true,
    description: "checkpoint of the teacher (.pth, .safetensors, diffusers or DCP folder)",
    valueHint: "PATH",
  },
  prompts: { type: "string", required: true, description: "file with a prompt a line", valueHint: "FILE" },
  out: {
    type: "string",
    required: true,
    description: "folder of the shards; the same command goes on where it stopped",
    valueHint: "DIR",
  },
  limit: { type: "string", default: "0", description: "most prompts; 0: all", valueHint: "N" },
  "text-encoder": { type: "string", description: "checkpoint of the umT5-xxl encoder", valueHint: "PATH" },
  tokenizer: { type: "string", description: "its tokenizer.json or sentencepiece model", valueHint: "FILE" },
  "text-cache": { type: "string", description: "folder that keeps embeddings of prompts", valueHint: "DIR" },
  embeds: {
    type: "string",
    description:
      "embeddings made before: a folder of 000000000.embed.pt files or of shards, or a file of [n, tokens, width]",
    valueHint: "PATH",
  },
  "negative-prompt": { type: "string", default: "", description: "negative prompt of the guidance", valueHint: "TEXT" },
  "negative-embeds": {
    type: "string",
    alias: "negative-embed",
    description: "torch file with its embedding, in place of --negative-prompt",
    valueHint: "FILE",
  },
  shape: {
    type: "string",
    default: "16,21,60,104",
    description: "latent shape: channels, frames, rows, columns (81 frames of 832x480)",
    valueHint: "C,T,Y,X",
  },
  sampler: { type: "string", default: "euler", description: "euler or unipc", valueHint: "KIND" },
  steps: { type: "string", default: "100", description: "steps of the teacher", valueHint: "N" },
  "sigma-max": { type: "string", default: "5000", description: "noise level of the first step", valueHint: "X" },
  shift: { type: "string", default: "3", description: "shift of the times", valueHint: "X" },
  guidance: { type: "string", default: "5", description: "guidance scale; 1: no negative prompt", valueHint: "X" },
  seed: { type: "string", default: "0", description: "sample i starts from noise of seed + i", valueHint: "N" },
  dtype: { type: "string", default: "bf16", description: "weights and activations: bf16 or f32", valueHint: "DTYPE" },
  residual: { type: "string", default: "f32", description: "residual stream: bf16 or f32", valueHint: "DTYPE" },
  time: {
    type: "string",
    default: "exact",
    description: "times of the network: exact, or bf16 as the public code rounds them",
    valueHint: "KIND",
  },
  batch: {
    type: "string",
    default: "1",
    description: "prompts per batch; does not change their noise",
    valueHint: "N",
  },
  "per-shard": { type: "string", default: "256", description: "samples per shard", valueHint: "N" },
  shard: {
    type: "string",
    default: "0/1",
    description: "job i of n in a job array: takes every n-th shard",
    valueHint: "I/N",
  },
  ...DEVICE_ARGS,
  ...OUTPUT_ARGS,
} as const;

export default defineCommand({
  meta: {
    name: "synth",
    description: `Run a teacher over prompts into webdataset shards, in the public format and with its settings.\n\n  rcm data synth --weights Wan2.1-T2V-14B.pth --prompts prompts.txt --text-encoder umt5.pth --tokenizer tokenizer.json --negative-embeds negative.pt --out data/wan\n  rcm data synth ... --shard "$SLURM_ARRAY_TASK_ID/8"      # in a job array; requeue on exit 75\n\n${EXIT_HELP}`,
  },
  args,
  async run({ args: a, rawArgs }) {
    expectKnown(rawArgs, args);
    const encoder =
      a["text-encoder"] === undefined
        ? null
        : { weights: a["text-encoder"], tokenizer: a.tokenizer ?? "", cache: a["text-cache"] ?? null };
    if (encoder && encoder.tokenizer === "")
      throw new RcmError("E_ARG", "--text-encoder goes with --tokenizer", { op: "usage" });
    if (a["negative-embeds"] !== undefined && a["negative-prompt"] !== "")
      throw new RcmError("E_ARG", "--negative-prompt and --negative-embeds say the same thing; give one", {
        op: "usage",
      });
    const shape = integers(a.shape, "shape");
    if (shape.length !== 4)
      throw new RcmError("E_ARG", `--shape: found "${a.shape}", allowed four whole numbers`, { op: "usage" });
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
        time: oneOf(a.time, "time", ["exact", "bf16"]),
        dtype: oneOf(a.dtype, "dtype", ["bf16", "f32"]),
        residual: oneOf(a.residual, "residual", ["bf16", "f32"]),
        batch: integer(a.batch, "batch", 1),
        perShard: integer(a["per-shard"], "per-shard", 1),
        job: parseShard(a.shard),
        device: deviceOf(a.device),
        threads: integer(a.threads, "threads"),
        shouldStop: stop.asked,
        onTruncated,
        onStage: (text) => view.line(text),
        onEvent: (done, total, each) =>
          view.update(done, total, `samples, ${seconds(each)} each, ${seconds(each * (total - done))} left`),
      });
      view.end();
      result(
        a.json,
        { ...s, truncated },
        `${s.samples} samples in ${s.shards} shards in ${s.out} (${s.kept} were there), ${seconds(s.secondsPerSample)} each, peak memory ${mebibytes(s.peakBytes)}`,
      );
    } finally {
      view.end();
      stop.restore();
    }
  },
});
