import { defineCommand } from "citty";
import { examine } from "../core/doctor.ts";
import { DEVICE_ARGS, deviceOf, expectKnown, flag } from "./args.ts";
import { EXIT } from "./exit.ts";
import { log, result } from "./ui.ts";

const args = {
  device: DEVICE_ARGS.device,
  json: flag("print JSON"),
} as const;

export default defineCommand({
  meta: { name: "doctor", description: "Check this machine and say what to install; exit 0 when training can run" },
  args,
  run({ args: a, rawArgs }) {
    expectKnown(rawArgs, args);
    const checks = examine(deviceOf(a.device));
    const ok = checks.every((c) => c.ok || c.optional);
    const lines = checks.map((c) => {
      const state = c.ok ? "ok     " : c.optional ? "absent " : "FAILED ";
      return `${state} ${c.name.padEnd(18)} ${c.found}${c.fix ? `\n         -> ${c.fix}` : ""}`;
    });
    result(a.json, { ok, checks }, lines.join("\n"));
    if (ok) log.success("training can run");
    else log.error("training cannot run yet");
    process.exitCode = ok ? EXIT.ok : EXIT.backend;
  },
});
