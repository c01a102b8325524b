import { readFileSync } from "node:fs";
import { dirname, isAbsolute, resolve } from "node:path";
import { isMap, isPair, isScalar, isSeq, LineCounter, parseDocument, type Node } from "yaml";
import { env } from "../env.ts";
import { RcmError } from "../error.ts";

/** Plain values and their locations, "file:line:column" by dotted path. */
export interface Sourced {
  value: unknown;
  places: Map<string, string>;
}

/** Keys whose values are paths, and values of these keys that are not paths. */
const PATHS = new Set([
  "teacher.weights",
  "data.path",
  "eval.classifier",
  "eval.data",
  "model.init",
  "teacher.negative_embed",
  "text.encoder",
  "text.tokenizer",
  "text.cache",
  "data.vae_round_trip",
]);
const NOT_PATHS = new Set(["teacher", "random"]);

const isRecord = (v: unknown): v is Record<string, unknown> => typeof v === "object" && v !== null && !Array.isArray(v);

/** Reads one YAML file with locations. Throws: E_IO, E_RECIPE listing every syntax error with its location. */
export function readYaml(path: string): Sourced {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (cause) {
    throw new RcmError("E_IO", `cannot read ${path}: ${(cause as Error).message}`, { op: "recipe", cause });
  }
  try {
    return parseYaml(text, path);
  } catch (cause) {
    if (cause instanceof RcmError) throw cause;
    // Thrown by the YAML library or the stack: undefined or recursive aliases, unlimited nesting.
    throw new RcmError("E_RECIPE", `${path}:1:1: ${(cause as Error).message}`, { op: "recipe", cause });
  }
}

function parseYaml(text: string, path: string): Sourced {
  const lines = new LineCounter();
  const doc = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: true, version: "1.2" });
  if (doc.errors.length > 0) {
    const all = doc.errors.map(
      (e) => `${path}:${lines.linePos(e.pos[0]).line}:${lines.linePos(e.pos[0]).col}: ${e.message}`,
    );
    throw new RcmError("E_RECIPE", all.slice(0, 10).join("\n"), { op: "recipe" });
  }
  const places = new Map<string, string>();
  const place = (node: Node | null | undefined): string => {
    const at = lines.linePos(node?.range?.[0] ?? 0);
    return `${path}:${at.line}:${at.col}`;
  };
  const walk = (node: unknown, at: string): void => {
    if (isMap(node)) {
      for (const pair of node.items) {
        if (!isPair(pair) || !isScalar(pair.key)) continue;
        const key = at === "" ? String(pair.key.value) : `${at}.${String(pair.key.value)}`;
        places.set(key, place(pair.key));
        walk(pair.value, key);
      }
    } else if (isSeq(node)) {
      node.items.forEach((item, i) => {
        places.set(`${at}.${i}`, place(item as Node));
        walk(item, `${at}.${i}`);
      });
    }
  };
  places.set("", `${path}:1:1`);
  walk(doc.contents, "");
  return { value: settle(doc.toJS({ maxAliasCount: 100 }), "", dirname(resolve(path)), places), places };
}

/**
 * Replaces ${VAR}, ${VAR:-default} and ${VAR:?what it is}, and makes paths absolute from `folder`.
 * Throws: E_RECIPE with a line for every variable that is not set.
 */
export function settle(value: unknown, at: string, folder: string, places: ReadonlyMap<string, string>): unknown {
  const unset: string[] = [];
  const fill = (text: string, key: string): string =>
    text.replace(
      /\$\{(\w+)(?::([-?])([^}]*))?\}/g,
      (_, name: string, form: "-" | "?" | undefined, rest: string | undefined) => {
        const set = env.variable(name);
        if (set !== null) return set;
        if (form === "-") return rest as string;
        const what = form === "?" && rest !== "" ? `set ${name} to ${rest}` : `set it, or write \${${name}:-default}`;
        unset.push(`${places.get(key) ?? key} ${key}: the environment variable ${name} is not set; ${what}`);
        return "";
      },
    );
  const walk = (part: unknown, key: string): unknown => {
    if (Array.isArray(part)) return part.map((v, i) => walk(v, `${key}.${i}`));
    if (isRecord(part))
      return Object.fromEntries(Object.entries(part).map(([k, v]) => [k, walk(v, key === "" ? k : `${key}.${k}`)]));
    if (typeof part !== "string") return part;
    const filled = fill(part, key);
    const relative = PATHS.has(key) && !NOT_PATHS.has(filled) && filled !== "" && !isAbsolute(filled);
    return relative ? resolve(folder, filled) : filled;
  };
  const settled = walk(value, at);
  if (unset.length > 0) throw new RcmError("E_RECIPE", unset.join("\n"), { op: "recipe" });
  return settled;
}

/** Merges `over` into `base` key by key. Lists, scalars, null and maps of another `kind` replace. */
export function merge(base: Sourced, over: Sourced): Sourced {
  const places = new Map(base.places);
  const join = (a: unknown, b: unknown, at: string): unknown => {
    const replace = !isRecord(a) || !isRecord(b) || ("kind" in a && "kind" in b && a.kind !== b.kind);
    if (replace) {
      for (const key of places.keys()) if (key.startsWith(`${at}.`)) places.delete(key);
      return b;
    }
    const out: Record<string, unknown> = { ...a };
    for (const [k, v] of Object.entries(b)) out[k] = k in a ? join(a[k], v, at === "" ? k : `${at}.${k}`) : v;
    return out;
  };
  const value = join(base.value, over.value, "");
  for (const [k, v] of over.places) places.set(k, v);
  return { value, places };
}

/** Reads a recipe merged over the one it extends. Throws: E_RECIPE on a cycle. */
export function readExtended(path: string, seen: string[] = []): Sourced {
  const absolute = resolve(path);
  if (seen.includes(absolute))
    throw new RcmError("E_RECIPE", `extends runs in a circle: ${[...seen, absolute].join(" -> ")}`, { op: "recipe" });
  const file = readYaml(path);
  if (!isRecord(file.value))
    throw new RcmError(
      "E_RECIPE",
      `${path}:1:1: found ${file.value === null ? "nothing" : typeof file.value}, allowed a map of keys`,
      { op: "recipe" },
    );
  const { extends: parent, ...rest } = file.value;
  if (parent === undefined) return file;
  if (typeof parent !== "string")
    throw new RcmError(
      "E_RECIPE",
      `${file.places.get("extends")} extends: found ${JSON.stringify(parent)}, allowed one path`,
      { op: "recipe" },
    );
  return merge(readExtended(resolve(dirname(absolute), parent), [...seen, absolute]), {
    value: rest,
    places: file.places,
  });
}
