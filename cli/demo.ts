import { defineCommand } from "citty";
import { demo } from "../core/demo.ts";
import { DEVICE_ARGS, deviceOf, expectKnown, integer, option, OUTPUT_ARGS } from "./args.ts";
import { progress, result, seconds } from "./ui.ts";

const args = {
  out: option("folder for everything the demo leaves", "DIR", "out/demo"),
  ...DEVICE_ARGS,
  ...OUTPUT_ARGS,
} as const;

export default defineCommand({
  meta: {
    name: "demo",
    description: "Digits end to end in a few minutes: data, a short rCM distillation, sampling, evaluation, export",
  },
  args,
  async run({ args: a, rawArgs }) {
    expectKnown(rawArgs, args);
    const view = progress(a.quiet);
    const d = await demo({
      out: a.out,
      device: deviceOf(a.device),
      threads: integer(a.threads, "threads"),
      onStage: (text) => view.line(`\n== ${text}`),
      onProgress: (done, total, text, every) => view.update(done, total, text, every),
    });
    view.end();
    result(
      a.json,
      d,
      [
        d.table,
        "",
        `pictures  ${d.pictures.join("\n          ")}`,
        `report    ${d.report}`,
        `exported  ${d.exported}`,
        `took      ${seconds(d.seconds)}`,
      ].join("\n"),
    );
  },
});
