import { createHash } from "node:crypto";
import * as v from "valibot";
import { parse, stringify } from "yaml";
import { RcmError } from "../error.ts";
import { crossChecks } from "./check.ts";
import { describeIssue, keysAt } from "./issues.ts";
import { recipeSchema, type Recipe } from "./schema.ts";
import { merge, readExtended, settle, type Sourced } from "./source.ts";
import { didYouMean } from "./suggest.ts";

export interface LoadedRecipe {
  recipe: Recipe;
  /** The file that was read. */
  path: string;
  /** YAML with every default; loads again to the same recipe. */
  resolved: string;
  /** First 16 hex digits of the SHA-256 of the recipe as canonical JSON, without machine-dependent paths. */
  hash: string;
}

const MOST = 10;

/** JSON with sorted keys. */
function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value) ?? "null";
  const entries = Object.entries(value).filter(([, x]) => x !== undefined).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${entries.map(([k, x]) => `${JSON.stringify(k)}:${canonical(x)}`).join(",")}}`;
}

/** The recipe without machine-dependent paths, for the hash. */
function portable(r: Recipe): unknown {
  const init = ["teacher", "random"].includes(r.model.init) ? r.model.init : "file";
  return {
    ...r,
    model: { ...r.model, init },
    data: { ...r.data, path: undefined, vae_round_trip: r.data.vae_round_trip && "file" },
    teacher: r.teacher && { ...r.teacher, weights: undefined, negative_embed: r.teacher.negative_embed && "file" },
    text: r.text && "files",
    eval: r.eval && { ...r.eval, classifier: undefined, data: undefined },
  };
}

/** Applies `--set a.b=v` to a recipe. Throws: E_RECIPE for a malformed assignment or an unknown key. */
function applySet(base: Sourced, text: string): Sourced {
  const equals = text.indexOf("=");
  const key = text.slice(0, equals).trim();
  if (equals < 1) throw new RcmError("E_RECIPE", `--set ${text}: found no "key=value"`, { op: "recipe" });
  let parsed: unknown;
  try {
    parsed = parse(text.slice(equals + 1));
  } catch (cause) {
    throw new RcmError("E_RECIPE", `--set ${key}: ${(cause as Error).message}`, { op: "recipe" });
  }
  const path = key.split(".");
  path.forEach((word, i) => {
    const allowed = keysAt(recipeSchema, path.slice(0, i), base.value);
    if (!allowed.includes(word)) {
      const keys = allowed.length > 0 ? allowed.join(", ") : "no keys here";
      const problem = `unknown key "${word}", allowed ${keys}${didYouMean(word, allowed)}`;
      throw new RcmError("E_RECIPE", `--set ${key}: ${problem}`, { op: "recipe" });
    }
  });
  const place = `--set ${key}`;
  const places = new Map([[key, place]]);
  const settled = settle(parsed, key, process.cwd(), places);
  const value = path.reduceRight<unknown>((inner, word) => ({ [word]: inner }), settled);
  return merge(base, { value, places });
}

/** The location of a key, or of the nearest map above it. */
function placeOf(places: ReadonlyMap<string, string>, key: string): string {
  for (let at = key; ; at = at.slice(0, Math.max(0, at.lastIndexOf(".")))) {
    const found = places.get(at);
    if (found !== undefined) return found;
    if (at === "") return "recipe";
  }
}

/**
 * Reads, extends, overrides and checks a recipe. Throws: E_IO when it cannot be read; E_RECIPE with a line for each
 * problem: location, key, what was found, what is allowed.
 */
export function loadRecipe(path: string, sets: readonly string[] = []): LoadedRecipe {
  const sourced = sets.reduce(applySet, readExtended(path));
  const result = v.safeParse(recipeSchema, sourced.value);
  const problems: string[] = [];
  if (!result.success) {
    for (const issue of result.issues) {
      const key = (issue.path ?? []).map((p) => String(p.key)).join(".");
      problems.push(`${placeOf(sourced.places, key)} ${key}: ${describeIssue(issue, recipeSchema, sourced.value)}`);
    }
  } else
    for (const [key, message] of crossChecks(result.output))
      problems.push(`${placeOf(sourced.places, key)} ${key}: ${message}`);
  if (!result.success || problems.length > 0) {
    const more = problems.length > MOST ? [`and ${problems.length - MOST} more`] : [];
    throw new RcmError("E_RECIPE", [...problems.slice(0, MOST), ...more].join("\n"), { op: "recipe" });
  }
  const recipe = result.output;
  const hash = createHash("sha256").update(canonical(portable(recipe))).digest("hex").slice(0, 16);
  const header = `# Resolved from ${path}; recipe hash ${hash}. Every default is written out; this file can be loaded.`;
  const resolved = `${header}\n${stringify(recipe, { lineWidth: 0 })}`;
  return { recipe, path, resolved, hash };
}
