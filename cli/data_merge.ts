import { defineCommand } from "citty";
import { mergeShards } from "../core/data/merge.ts";
import {
  expectKnown,
  flag,
  integer,
  oneOf,
  option,
  OUTPUT_ARGS,
  repeated,
  requiredOption,
  usage,
  withExamples,
} from "./args.ts";
import { progress, result } from "./ui.ts";

const args = {
  from: option("a shard or a folder of shards, may be repeated; samples keep this order", "PATH"),
  out: requiredOption("new folder for the merged shards", "DIR"),
  "per-shard": option("samples per shard", "N", "256"),
  naming: option("underscore: shard_000000.tar; dash: shard-00000.tar", "STYLE", "underscore"),
  renumber: flag("give the samples keys 0, 1, 2, ... instead of refusing two different samples of one key"),
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
    description: withExamples(
      "Copy shards of many folders into one set; equal samples of one key are taken once.",
      "rcm data merge --from job0 --from job1 --out data/wan",
    ),
  },
  args,
  run({ args: a, rawArgs }) {
    expectKnown(rawArgs, args);
    const inputs = repeated(rawArgs, "from");
    if (inputs.length === 0) throw usage("--from names a shard or a folder of shards");
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
    const duplicates = m.duplicates > 0 ? `; ${m.duplicates} equal ones left out` : "";
    result(a.json, m, `${m.samples} samples in ${m.shards} shards in ${m.out}${duplicates}`);
  },
});
