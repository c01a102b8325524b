import { defineCommand } from "citty";
import { inspectWeights, type WeightsReport } from "../core/weights/inspect.ts";
import { describeFit } from "../core/weights/fit.ts";
import { expectKnown, oneOf, OUTPUT_ARGS } from "./args.ts";
import { mebibytes, result } from "./ui.ts";

const args = {
  path: {
    type: "positional",
    required: true,
    description: "checkpoint: file, shard index, diffusers or distributed folder, run folder",
  },
  kind: { type: "string", default: "ema", description: "weights of a training run: ema or student", valueHint: "KIND" },
  verify: {
    type: "boolean",
    default: false,
    description: "read all data and compare checksums, where the format has them (torch zip, distributed)",
  },
  ...OUTPUT_ARGS,
} as const;

function text(r: WeightsReport): string {
  const dtypes = Object.entries(r.dtypes).map(([d, n]) => `${n} ${d}`).join(", ");
  const lines = [
    `${r.path}: ${r.format}, ${r.files} file${r.files === 1 ? "" : "s"}, ${mebibytes(r.bytes)}`,
    `tensors     ${r.tensors} (${dtypes}), ${r.parameters.toLocaleString("en")} elements`,
    r.companion
      ? `holds       ${r.companion.kind}: ${r.companion.size}; every parameter is there`
      : `layout      ${r.layout === null ? `no known network; keys such as ${r.keys.slice(0, 3).join(", ")}` : `${r.layout}${r.prefix === "" ? "" : `, prefix ${r.prefix}`}`}`,
  ];
  if (r.networks.length > 1) lines.push(`networks    ${r.networks.map((n) => n || "(no prefix)").join(", ")}`);
  if (r.config && r.latent) {
    const { config: c, latent } = r;
    const sizes = `width ${c.dim}, ${c.layers} layers, ${c.heads} heads, feed-forward ${r.ffnDim}`;
    lines.push(
      `network     ${r.preset ?? "of no preset"}: ${sizes}, ${latent.inputChannels} channels in, ${latent.channels} out`,
    );
  }
  if (r.fit) lines.push(`fits        ${describeFit(r.fit) || "every parameter is there, none is left over"}`);
  if (r.problem !== null) lines.push(`problem     ${r.problem}`);
  return lines.join("\n");
}

const inspect = defineCommand({
  meta: {
    name: "inspect",
    description:
      "Say what a checkpoint is, from its headers alone: format, layout, network, and how its keys fit.\n\n  rcm weights inspect Wan2.1-T2V-1.3B --json",
  },
  args,
  run({ args: a, rawArgs }) {
    expectKnown(rawArgs, args);
    const report = inspectWeights(a.path, oneOf(a.kind, "kind", ["ema", "student"] as const), { verify: a.verify });
    result(a.json, report, text(report));
  },
});

export default defineCommand({
  meta: { name: "weights", description: "Look into checkpoints" },
  subCommands: { inspect },
});
