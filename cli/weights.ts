import { defineCommand } from "citty";
import { inspectWeights, type WeightsReport } from "../core/weights/inspect.ts";
import { describeFit } from "../core/weights/fit.ts";
import { expectKnown, flag, oneOf, option, OUTPUT_ARGS, withExamples } from "./args.ts";
import { mebibytes, result } from "./ui.ts";
import { WEIGHT_KINDS } from "../core/models/layout.ts";

const args = {
  path: {
    type: "positional",
    required: true,
    description: "checkpoint: file, shard index, diffusers or distributed folder, run folder",
  },
  kind: option("weights of a training run: ema or student", "KIND", "ema"),
  verify: flag("read all data and compare checksums, where the format has them (torch zip, distributed)"),
  ...OUTPUT_ARGS,
} as const;

function contents(r: WeightsReport): string {
  if (r.companion) return `holds       ${r.companion.kind}: ${r.companion.size}; every parameter is there`;
  if (r.layout === null) return `layout      no known network; keys such as ${r.keys.slice(0, 3).join(", ")}`;
  return `layout      ${r.layout}${r.prefix === "" ? "" : `, prefix ${r.prefix}`}`;
}

function text(r: WeightsReport): string {
  const dtypes = Object.entries(r.dtypes).map(([d, n]) => `${n} ${d}`).join(", ");
  const lines = [
    `${r.path}: ${r.format}, ${r.files} file${r.files === 1 ? "" : "s"}, ${mebibytes(r.bytes)}`,
    `tensors     ${r.tensors} (${dtypes}), ${r.parameters.toLocaleString("en")} elements`,
    contents(r),
  ];
  if (r.networks.length > 1) lines.push(`networks    ${r.networks.map((n) => n || "(no prefix)").join(", ")}`);
  if (r.config && r.latent) {
    const { config: c, latent } = r;
    const sizes = `width ${c.dim}, ${c.layers} layers, ${c.heads} heads, feed-forward ${r.ffnDim}`;
    const channels = `${latent.inputChannels} channels in, ${latent.channels} out`;
    lines.push(`network     ${r.preset ?? "of no preset"}: ${sizes}, ${channels}`);
  }
  if (r.fit) lines.push(`fits        ${describeFit(r.fit) || "every parameter is there, none is left over"}`);
  if (r.problem !== null) lines.push(`problem     ${r.problem}`);
  return lines.join("\n");
}

const inspect = defineCommand({
  meta: {
    name: "inspect",
    description: withExamples(
      "Say what a checkpoint is, from its headers alone: format, layout, network, and how its keys fit.",
      "rcm weights inspect Wan2.1-T2V-1.3B --json",
    ),
  },
  args,
  run({ args: a, rawArgs }) {
    expectKnown(rawArgs, args);
    const report = inspectWeights(a.path, oneOf(a.kind, "kind", WEIGHT_KINDS), { verify: a.verify });
    result(a.json, report, text(report));
  },
});

export default defineCommand({
  meta: { name: "weights", description: "Look into checkpoints" },
  subCommands: { inspect },
});
