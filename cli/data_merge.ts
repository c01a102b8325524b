import { defineCommand } from "citty";
import { mergeShards } from "../core/data/merge.ts";
import { RcmError } from "../core/error.ts";
import { expectKnown, integer, oneOf, OUTPUT_ARGS, repeated } from "./args.ts";
import { progress, result } from "./ui.ts";

const args = {
  from: {
    type: "string",
    description: "a shard or a folder of shards, may be repeated; samples keep this order",
    valueHint: "PATH",
  },
  out: { type: "string", required: true, description: "new folder for the merged shards", valueHint: "DIR" },
  "per-shard": { type: "string", default: "256", description: "samples per shard", valueHint: "N" },
  naming: {
    type: "string",
    default: "underscore",
    description: "underscore: shard_000000.tar; dash: shard-00000.tar",
    valueHint: "STYLE",
  },
  renumber: {
    type: "boolean",
    default: false,
    description: "give the samples keys 0, 1, 2, ... instead of refusing two different samples of one key",
  },
  check: {
    type: "boolean",
    default: true,
    description: "decode every member before it is copied; --no-check leaves that out",
  },
  ...OUTPUT_ARGS,
} as const;

export default defineCommand({
  meta: {
    name: "merge",
    description:
      "Copy shards of many folders into one set; equal samples of one key are taken once.\n\n  rcm data merge --from job0 --from job1 --out data/wan",
  },
  args,
  run({ args: a, rawArgs }) {
    expectKnown(rawArgs, args);
    const inputs = repeated(rawArgs, "from");
    if (inputs.length === 0) throw new RcmError("E_ARG", "--from names a shard or a folder of shards", { op: "usage" });
    const view = progress(a.quiet);
    const m = mergeShards({
      inputs,
      out: a.out,
      perShard: integer(a["per-shard"], "per-shard", 1),
      naming: oneOf(a.naming, "naming", ["underscore", "dash"]),
      renumber: a.renumber,
      check: a.check,
      onShard: (done, total) => view.update(done, total, "samples"),
    });
    view.end();
    result(
      a.json,
      m,
      `${m.samples} samples in ${m.shards} shards in ${m.out}${m.duplicates > 0 ? `; ${m.duplicates} equal ones left out` : ""}`,
    );
  },
});
