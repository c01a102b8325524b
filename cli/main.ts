import { defineCommand, renderUsage, runCommand, type CommandDef } from "citty";
import pkg from "../package.json" with { type: "json" };
import { env } from "../core/env.ts";
import { RcmError } from "../core/error.ts";
import { didYouMean } from "../core/recipe/suggest.ts";
import bench from "./bench.ts";
import data from "./data.ts";
import demo from "./demo.ts";
import distill from "./distill.ts";
import doctor from "./doctor.ts";
import evaluate from "./eval.ts";
import { usage } from "./args.ts";
import { EXIT, EXIT_HELP, exitOf } from "./exit.ts";
import exporter from "./export.ts";
import recipe from "./recipe.ts";
import sample from "./sample.ts";
import text from "./text.ts";
import { log } from "./ui.ts";
import weights from "./weights.ts";

// biome-ignore lint: commands differ in their arguments
type AnyCommand = CommandDef<any>;

const subCommands: Record<string, AnyCommand> = {
  distill,
  sample,
  eval: evaluate,
  export: exporter,
  weights,
  data,
  text,
  recipe,
  bench,
  doctor,
  demo,
};

const root = defineCommand({
  meta: {
    name: "rcm",
    version: pkg.version,
    description: `Distil diffusion models to 1-4 sampling steps.\n\n${EXIT_HELP}`,
  },
  subCommands,
});

const unknownCommand = (word: string, known: string[]): Error =>
  usage(`unknown command "${word}", allowed ${known.join(", ")}${didYouMean(word, known)}`);

/** Walks from the root along subcommand words; returns the command and its arguments. */
function find(raw: string[]): { command: AnyCommand; parent: AnyCommand | null; rest: string[]; missing: boolean } {
  let command: AnyCommand = root;
  let parent: AnyCommand | null = null;
  let rest = raw;
  for (;;) {
    const subs = command.subCommands as Record<string, AnyCommand> | undefined;
    if (!subs) return { command, parent, rest, missing: false };
    const word = rest[0];
    if (word === undefined || word.startsWith("-")) return { command, parent, rest, missing: true };
    if (!(word in subs))
      throw unknownCommand(word, Object.keys(subs));
    [parent, command, rest] = [command, subs[word], rest.slice(1)];
  }
}

/** The command with one-line descriptions of its subcommands; the help of each has its examples and exit statuses. */
function brief(command: AnyCommand): AnyCommand {
  const subs = command.subCommands as Record<string, AnyCommand> | undefined;
  if (!subs) return command;
  const line = (c: AnyCommand): AnyCommand => {
    const meta = c.meta as { name?: string; description?: string };
    return { ...c, meta: { ...meta, description: meta.description?.split("\n")[0] } };
  };
  return { ...command, subCommands: Object.fromEntries(Object.entries(subs).map(([name, c]) => [name, line(c)])) };
}

async function main(raw: string[]): Promise<void> {
  if (raw[0] === "--version" || raw[0] === "-v") return void process.stdout.write(`${pkg.version}\n`);
  const { command, parent, rest, missing } = find(raw);
  const help = rest.includes("--help") || rest.includes("-h");
  if (help || missing) {
    const text = await renderUsage(brief(command), parent ?? undefined);
    process.stdout.write(`${process.stdout.isTTY && !env.noColor ? text : text.replace(/\x1b\[[0-9;]*m/g, "")}\n`);
    if (!help) process.exitCode = EXIT.usage;
    return;
  }
  await runCommand(command, { rawArgs: rest });
}

const raw = process.argv.slice(2);
try {
  await main(raw);
} catch (error) {
  const known = error instanceof RcmError;
  // Errors that citty throws (a missing argument) are about usage.
  const status = known ? exitOf(error) : (error as Error).name === "CLIError" ? EXIT.usage : EXIT.internal;
  const message = known
    ? error.message.replace(/^\[(recipe|usage)\] /, "")
    : ((error as Error).message ?? String(error));
  if (raw.includes("--json")) {
    const [code, op] = known ? [error.code, error.op] : ["E_INTERNAL", "rcm"];
    process.stdout.write(`${JSON.stringify({ error: { code, message, op, exit: status } })}\n`);
  }
  log.error(message);
  if (env.stacks || status === EXIT.internal) process.stderr.write(`${(error as Error).stack ?? ""}\n`);
  process.exitCode = status;
}
