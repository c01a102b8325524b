import { defineCommand } from "citty";
import { inspectRun, type InspectSummary } from "../core/data/inspect_run.ts";
import { DEVICE_ARGS, deviceOf, expectKnown, integer, option, OUTPUT_ARGS, withExamples } from "./args.ts";
import { EXIT } from "./exit.ts";
import { log, mebibytes, progress, result } from "./ui.ts";

const args = {
  data: { type: "positional", required: true, description: "a shard or a folder of shards" },
  statistics: option("samples that mean and deviation are taken of, evenly spread; 0: all", "N", "256"),
  sheet: option(
    "contact sheet to write (PNG): decoded frames with --vae, else three latent channels as colours",
    "FILE",
  ),
  count: option("samples on the contact sheet, evenly spread", "N", "16"),
  vae: option("weights of the Wan VAE, to show pictures", "FILE"),
  ...DEVICE_ARGS,
  ...OUTPUT_ARGS,
} as const;

const text = (s: InspectSummary): string => {
  const counts = (c: Record<string, number>): string =>
    Object.entries(c)
      .map(([k, n]) => `${n} x ${k}`)
      .join("; ");
  const spread = (v: { least: number; mean: number; most: number }): string =>
    `${v.least} to ${v.most}, mean ${v.mean.toFixed(1)}`;
  const channels = s.channels.map(
    (c, i) => `  ${String(i).padStart(2)}  ${c.mean.toFixed(4).padStart(9)}  ${c.std.toFixed(4).padStart(9)}`,
  );
  return [
    `${s.samples} samples in ${s.shards} shards, ${mebibytes(s.bytes)}`,
    `latents    ${counts(s.latents)}`,
    `embeddings ${counts(s.embeds)}, tokens ${spread(s.embedTokens)}`,
    `prompts    ${spread(s.promptLength)} characters, ${s.duplicatePrompts} repeated`,
    `channel, mean and deviation over ${s.statisticsSamples} samples`,
    ...channels,
    ...(s.sheet ? [`sheet      ${s.sheet}`] : []),
    ...s.problems.map((p) => `PROBLEM    ${p}`),
  ].join("\n");
};

export default defineCommand({
  meta: {
    name: "inspect",
    description: withExamples(
      "Read every member of a data set once: count, shapes, statistics, damage; exit 3 when something is wrong.",
      "rcm data inspect data/wan --sheet sheet.png",
    ),
  },
  args,
  run({ args: a, rawArgs }) {
    expectKnown(rawArgs, args);
    const view = progress(a.quiet);
    const s = inspectRun({
      inputs: [a.data],
      statistics: integer(a.statistics, "statistics"),
      count: integer(a.count, "count", 1),
      sheet: a.sheet ?? null,
      vae: a.vae ?? null,
      device: deviceOf(a.device),
      threads: integer(a.threads, "threads"),
      onSample: (done, total) => view.update(done, total, "samples", 256),
    });
    view.end();
    result(a.json, s, text(s));
    if (!s.ok) {
      log.error(`${s.problems.length} problems`);
      process.exitCode = EXIT.data;
    }
  },
});
