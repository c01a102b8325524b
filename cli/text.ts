import { defineCommand } from "citty";
import { RcmError } from "../core/error.ts";
import { cleanPrompt } from "../core/text/clean.ts";
import { Tokenizer } from "../core/text/tokenizers/tokenizer.ts";
import { encodeToFiles } from "../core/text/encode_run.ts";
import { DEVICE_ARGS, deviceOf, expectKnown, integer, oneOf, OUTPUT_ARGS, promptsOf } from "./args.ts";
import { mebibytes, progress, result, seconds, truncations } from "./ui.ts";

const PROMPT_ARGS = {
  tokenizer: {
    type: "string",
    required: true,
    description: "tokenizer.json or sentencepiece .model",
    valueHint: "FILE",
  },
  prompt: { type: "string", description: "a prompt, may be repeated", valueHint: "TEXT" },
  prompts: { type: "string", description: "file with a prompt a line", valueHint: "FILE" },
  length: { type: "string", default: "512", description: "tokens a prompt, the end token included", valueHint: "N" },
} as const;

const encodeArgs = {
  weights: {
    type: "string",
    required: true,
    description: "umT5 encoder: .pth, .safetensors, shard index or folder; Wan's or transformers' keys",
    valueHint: "PATH",
  },
  ...PROMPT_ARGS,
  negative: {
    type: "string",
    description: "negative prompt; in a folder its file has the name that the public code looks for",
    valueHint: "TEXT",
  },
  out: { type: "string", required: true, description: "FILE.pt for one prompt, else a folder", valueHint: "PATH" },
  cache: { type: "string", default: "", description: "folder that keeps embeddings of prompts", valueHint: "DIR" },
  dtype: { type: "string", default: "bf16", description: "bf16, f16 or f32", valueHint: "DTYPE" },
  ...DEVICE_ARGS,
  ...OUTPUT_ARGS,
} as const;

const encode = defineCommand({
  meta: {
    name: "encode",
    description:
      "Embed prompts with umT5.\n\n  rcm text encode --weights models_t5_umt5-xxl-enc-bf16.pth --tokenizer tokenizer.json --prompt 'a red kite' --out kite.embed.pt\n  rcm text encode --weights models_t5_umt5-xxl-enc-bf16.pth --tokenizer spiece.model --prompts prompts.txt --negative 'blurred' --cache cache --out embeds",
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
    const loaded = s.load
      ? `; weights ${mebibytes(s.load.bytes)} in ${seconds(s.load.seconds)} (${(s.load.bytes / s.load.seconds / 1e9).toFixed(1)} GB/s)`
      : "";
    result(
      a.json,
      s,
      `${s.files.length} embeddings [${s.shape.join(", ")}] ${s.dtype} in ${seconds(s.seconds)}: ${s.encoded} encoded, ${s.cached} from the cache${s.truncated.length > 0 ? `, ${s.truncated.length} cut to ${a.length} tokens` : ""}${loaded}; peak memory ${mebibytes(s.peakBytes)}\n${s.files.length === 1 ? s.files[0].path : a.out}`,
    );
  },
});

const tokenizeArgs = { ...PROMPT_ARGS, ...OUTPUT_ARGS } as const;

const tokenize = defineCommand({
  meta: {
    name: "tokenize",
    description:
      "Show how prompts are cleaned and cut into tokens.\n\n  rcm text tokenize --tokenizer tokenizer.json --prompt 'a red kite'",
  },
  args: tokenizeArgs,
  run({ args: a, rawArgs }) {
    expectKnown(rawArgs, tokenizeArgs);
    const prompts = promptsOf(rawArgs, a.prompts);
    if (prompts.length === 0) throw new RcmError("E_ARG", "no prompt: give --prompt or --prompts", { op: "usage" });
    const length = integer(a.length, "length", 1);
    const tokenizer = Tokenizer.open(a.tokenizer);
    const rows = prompts.map((prompt) => {
      const clean = cleanPrompt(prompt);
      const { ids, full } = tokenizer.encode(clean, length);
      return { prompt, clean, ids, pieces: tokenizer.pieces(ids), full, truncated: full > ids.length };
    });
    result(
      a.json,
      { tokenizer: a.tokenizer, size: tokenizer.size, prompts: rows },
      rows
        .map(
          (r) =>
            `${r.ids.length}${r.truncated ? ` of ${r.full}` : ""} tokens: ${r.pieces.map((p, i) => `${p}:${r.ids[i]}`).join(" ")}`,
        )
        .join("\n"),
    );
  },
});

export default defineCommand({
  meta: { name: "text", description: "Clean, tokenize and embed prompts" },
  subCommands: { encode, tokenize },
});
