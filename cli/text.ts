import { defineCommand } from "citty";
import { cleanPrompt } from "../core/text/clean.ts";
import { Tokenizer } from "../core/text/tokenizers/tokenizer.ts";
import { encodeToFiles, type EncodeSummary } from "../core/text/encode_run.ts";
import {
  DEVICE_ARGS,
  deviceOf,
  expectKnown,
  integer,
  oneOf,
  option,
  OUTPUT_ARGS,
  promptsOf,
  requiredOption,
  usage,
  withExamples,
} from "./args.ts";
import { mebibytes, progress, result, seconds, truncations } from "./ui.ts";

const PROMPT_ARGS = {
  tokenizer: requiredOption("tokenizer.json or sentencepiece .model", "FILE"),
  prompt: option("a prompt, may be repeated", "TEXT"),
  prompts: option("file with a prompt a line", "FILE"),
  length: option("tokens a prompt, the end token included", "N", "512"),
} as const;

const encodeArgs = {
  weights: requiredOption(
    "umT5 encoder: .pth, .safetensors, shard index or folder; Wan's or transformers' keys",
    "PATH",
  ),
  ...PROMPT_ARGS,
  negative: option("negative prompt; in a folder its file has the name that the public code looks for", "TEXT"),
  out: requiredOption("FILE.pt for one prompt, else a folder", "PATH"),
  cache: option("folder that keeps embeddings of prompts", "DIR", ""),
  dtype: option("bf16, f16 or f32", "DTYPE", "bf16"),
  ...DEVICE_ARGS,
  ...OUTPUT_ARGS,
} as const;

function describe(s: EncodeSummary, length: string): string {
  const rate = (l: { bytes: number; seconds: number }): string => `${(l.bytes / l.seconds / 1e9).toFixed(1)} GB/s`;
  const embeddings = `${s.files.length} embeddings [${s.shape.join(", ")}] ${s.dtype} in ${seconds(s.seconds)}`;
  const truncated = s.truncated.length > 0 ? `, ${s.truncated.length} cut to ${length} tokens` : "";
  const loaded = s.load
    ? [`weights ${mebibytes(s.load.bytes)} in ${seconds(s.load.seconds)} (${rate(s.load)})`]
    : [];
  return [
    `${embeddings}: ${s.encoded} encoded, ${s.cached} from the cache${truncated}`,
    ...loaded,
    `peak memory ${mebibytes(s.peakBytes)}`,
  ].join("; ");
}

const encode = defineCommand({
  meta: {
    name: "encode",
    description:
withExamples(
      "Embed prompts with umT5.",
      "rcm text encode --weights models_t5_umt5-xxl-enc-bf16.pth --tokenizer tokenizer.json \\",
      "  --prompt 'a red kite' --out kite.embed.pt",
      "rcm text encode --weights models_t5_umt5-xxl-enc-bf16.pth --tokenizer spiece.model \\",
      "  --prompts prompts.txt --negative 'blurred' --cache cache --out embeds",
    ),
  },
  args: encodeArgs,
  async run({ args: a, rawArgs }) {
    expectKnown(rawArgs, encodeArgs);
    const view = progress(a.quiet);
    const s = await encodeToFiles({
      weights: a.weights,
      tokenizer: a.tokenizer,
      cache: a.cache === "" ? null : a.cache,
      prompts: promptsOf(rawArgs, a.prompts),
      negative: a.negative ?? null,
      out: a.out,
      dtype: oneOf(a.dtype, "dtype", ["bf16", "f16", "f32"]),
      length: integer(a.length, "length", 1),
      device: deviceOf(a.device),
      threads: integer(a.threads, "threads"),
      onTruncated: truncations().onTruncated,
      onProgress: (done, total) =>
        view.update(
          Math.round(done / 2 ** 20),
          Math.round(total / 2 ** 20),
          "MiB of weights",
          Math.max(1, Math.round(total / 2 ** 20)),
        ),
      onPrompt: (done, total) => view.update(done, total, "prompts", 100),
    });
    view.end();
    result(a.json, s, [describe(s, a.length), s.files.length === 1 ? s.files[0].path : a.out].join("\n"));
  },
});

const tokenizeArgs = { ...PROMPT_ARGS, ...OUTPUT_ARGS } as const;

const tokenize = defineCommand({
  meta: {
    name: "tokenize",
    description: withExamples(
      "Show how prompts are cleaned and cut into tokens.",
      "rcm text tokenize --tokenizer tokenizer.json --prompt 'a red kite'",
    ),
  },
  args: tokenizeArgs,
  run({ args: a, rawArgs }) {
    expectKnown(rawArgs, tokenizeArgs);
    const prompts = promptsOf(rawArgs, a.prompts);
    if (prompts.length === 0) throw usage("no prompt: give --prompt or --prompts");
    const length = integer(a.length, "length", 1);
    const tokenizer = Tokenizer.open(a.tokenizer);
    const rows = prompts.map((prompt) => {
      const clean = cleanPrompt(prompt);
      const { ids, full } = tokenizer.encode(clean, length);
      return { prompt, clean, ids, pieces: tokenizer.pieces(ids), full, truncated: full > ids.length };
    });
    const lines = rows.map((r) => {
      const pieces = r.pieces.map((p, i) => `${p}:${r.ids[i]}`).join(" ");
      return `${r.ids.length}${r.truncated ? ` of ${r.full}` : ""} tokens: ${pieces}`;
    });
    result(a.json, { tokenizer: a.tokenizer, size: tokenizer.size, prompts: rows }, lines.join("\n"));
  },
});

export default defineCommand({
  meta: { name: "text", description: "Clean, tokenize and embed prompts" },
  subCommands: { encode, tokenize },
});
