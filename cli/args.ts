import type { ArgsDef } from "citty";
import { RcmError } from "../core/error.ts";
import { didYouMean } from "../core/recipe/suggest.ts";
import { readPrompts } from "../core/text/prompts.ts";
import type { DeviceName } from "../core/tensor.ts";

const valueFlag = (description: string, valueHint: string) => ({ type: "string", description, valueHint }) as const;

type ValueFlag = ReturnType<typeof valueFlag>;

/** A flag with a value. Without `otherwise` it is undefined when not given. */
export function option(description: string, valueHint: string): ValueFlag;
export function option(description: string, valueHint: string, otherwise: string): ValueFlag & { default: string };
export function option(
  description: string,
  valueHint: string,
  otherwise?: string,
): ValueFlag | (ValueFlag & { default: string }) {
  const flag = valueFlag(description, valueHint);
  return otherwise === undefined ? flag : { ...flag, default: otherwise };
}

export const requiredOption = (description: string, valueHint: string) =>
  ({ ...valueFlag(description, valueHint), required: true }) as const;

export const flag = (description: string) => ({ type: "boolean", default: false, description }) as const;

/** The help of a command: what it does, then commands to copy. */
export const withExamples = (summary: string, ...examples: string[]): string =>
  [summary, "", ...examples.map((example) => `  ${example}`)].join("\n");

/** Flags that several subcommands share. */
export const DEVICE_ARGS = {
  device: option("auto, cpu or cuda", "DEVICE", "auto"),
  threads: option("host threads; 0: all that the process may use", "N", "0"),
} as const satisfies ArgsDef;

export const OUTPUT_ARGS = {
  json: flag("print one JSON document on stdout; progress goes to stderr"),
  quiet: { ...flag("no progress"), alias: "q" },
} as const satisfies ArgsDef;

export const PARTIAL_ARG = {
  "allow-partial": flag("load weights that fit only in part; the rest keeps its initial values"),
} as const satisfies ArgsDef;

export const SET_ARG = {
  set: option("override a recipe key, may be repeated: --set train.steps=100", "KEY=VALUE"),
} as const satisfies ArgsDef;

export const usage = (message: string): RcmError => new RcmError("E_ARG", message, { op: "usage" });

const kebab = (s: string): string => s.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`);

/** Refuses unknown flags and surplus positional arguments. Throws: E_ARG with a suggestion. */
export function expectKnown(raw: readonly string[], args: ArgsDef): void {
  const names = new Map<string, boolean>();
  let positionals = 0;
  for (const [name, def] of Object.entries(args)) {
    if (def.type === "positional") {
      positionals++;
      continue;
    }
    const hasValue = def.type !== "boolean";
    for (const n of [name, kebab(name), ...[("alias" in def && def.alias) || []].flat()])
      names.set(String(n), hasValue);
  }
  for (const n of ["help", "h", "version"]) names.set(n, false);
  const known = [...names.keys()].filter((n) => n.length > 1).map((n) => `--${n}`);
  let found = 0;
  for (let i = 0; i < raw.length; i++) {
    const word = raw[i];
    if (word === "--") break;
    if (!word.startsWith("-") || word === "-") {
      if (++found > positionals) throw usage(`unexpected argument "${word}"`);
      continue;
    }
    const name = word.replace(/^--?/, "").split("=")[0];
    const plain = name.startsWith("no-") && names.get(name.slice(3)) === false ? name.slice(3) : name;
    if (!names.has(plain))
      throw usage(`unknown flag ${word.split("=")[0]}, allowed ${known.join(" ")}${didYouMean(`--${name}`, known)}`);
    if (names.get(plain) && !word.includes("=")) {
      if (i + 1 >= raw.length) throw usage(`${word} needs a value`);
      i++;
    }
  }
}

/** All values of a repeated flag, in order. */
export function repeated(raw: readonly string[], name: string): string[] {
  const out: string[] = [];
  raw.forEach((word, i) => {
    if (word === `--${name}` && raw[i + 1] !== undefined) out.push(raw[i + 1]);
    else if (word.startsWith(`--${name}=`)) out.push(word.slice(name.length + 3));
  });
  return out;
}

/** Prompts of --prompt and of the file of --prompts. Throws: E_IO, E_FORMAT. */
export const promptsOf = (raw: readonly string[], file: string | undefined): string[] =>
  [...repeated(raw, "prompt"), ...(file === undefined ? [] : readPrompts(file))];

/** A whole number of a flag. Throws: E_ARG. */
export function integer(text: string, flag: string, least = 0): number {
  const n = Number(text);
  if (text.trim() === "" || !Number.isSafeInteger(n) || n < least)
    throw usage(`--${flag}: found "${text}", allowed whole numbers from ${least}`);
  return n;
}

/** A number of a flag, at least `least`. Throws: E_ARG. */
export function decimal(text: string, flag: string, least = -Infinity): number {
  const n = Number(text);
  if (text.trim() === "" || !Number.isFinite(n) || n < least)
    throw usage(`--${flag}: found "${text}", allowed numbers${least === -Infinity ? "" : ` from ${least}`}`);
  return n;
}

/** A comma-separated list of whole numbers. */
export const integers = (text: string, flag: string): number[] =>
  text === "" ? [] : text.split(",").map((t) => integer(t, flag, 1));

export function oneOf<T extends string>(text: string, flag: string, allowed: readonly T[]): T {
  const found = allowed.find((a) => a === text);
  if (found === undefined)
    throw usage(`--${flag}: found "${text}", allowed ${allowed.join(", ")}${didYouMean(text, allowed)}`);
  return found;
}

export const deviceOf = (text: string): DeviceName => oneOf(text, "device", ["auto", "cpu", "cuda"]);

/** A number of bytes: 80GiB, 80GB, 512MiB or plain. Throws: E_ARG. */
export function byteSize(text: string, flag: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?$/i.exec(text.trim());
  const bytes = match
    ? Number(match[1]) * (match[3] ? 1024 : 1000) ** " kmgt".indexOf(match[2].toLowerCase() || " ")
    : 0;
  if (!(bytes > 0)) throw usage(`--${flag}: found "${text}", allowed sizes such as 80GiB or 141GB`);
  return bytes;
}
