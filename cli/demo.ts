import { defineCommand } from "citty";
import { demo } from "../core/demo.ts";
import { DEVICE_ARGS, deviceOf, expectKnown, integer, OUTPUT_ARGS } from "./args.ts";
import { progress, result, seconds } from "./ui.ts";

const args = {
  out: { type: "string", default: "out/demo", description: "folder for everything the demo leaves", valueHint: "DIR" },
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
      `${d.table}\n\npictures  ${d.pictures.join("\n          ")}\nreport    ${d.report}\nexported  ${d.exported}\ntook      ${seconds(d.seconds)}`,
    );
  },
});
