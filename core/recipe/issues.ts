import type * as v from "valibot";
import { didYouMean } from "./suggest.ts";

/** Texts of valibot's issues: what was found, what is allowed. */

interface AnySchema {
  type: string;
  wrapped?: AnySchema;
  pipe?: AnySchema[];
  entries?: Record<string, AnySchema>;
  options?: unknown[];
  key?: string;
  literal?: unknown;
}

/** The schema inside optional, nullable and pipe wrappers. */
function core(schema: AnySchema): AnySchema {
  if (schema.wrapped) return core(schema.wrapped);
  if (schema.pipe && schema.pipe[0] !== schema) return core(schema.pipe[0]);
  return schema;
}

/** Map schemas allowed at a path; a value's `kind` selects among variants. */
export function mapsAt(root: unknown, path: readonly string[], value: unknown): AnySchema[] {
  let at = [core(root as AnySchema)];
  let here = value;
  for (const key of ["", ...path]) {
    if (key !== "") {
      at = at.flatMap((s) => (s.entries && key in s.entries ? [core(s.entries[key])] : []));
      here = typeof here === "object" && here !== null ? (here as Record<string, unknown>)[key] : undefined;
    }
    at = at.flatMap((s) => {
      if (s.type !== "variant") return [s];
      const options = (s.options as AnySchema[]).map(core);
      const kind = typeof here === "object" && here !== null ? (here as Record<string, unknown>).kind : undefined;
      const fit = options.filter((o) => o.entries?.kind && core(o.entries.kind).literal === kind);
      return fit.length > 0 ? fit : options;
    });
  }
  return at;
}

/** Keys allowed in the map at a path. */
export const keysAt = (root: unknown, path: readonly string[], value: unknown): string[] => [
  ...new Set(mapsAt(root, path, value).flatMap((s) => Object.keys(s.entries ?? {}))),
];

const show = (x: unknown): string => (x === undefined ? "nothing" : JSON.stringify(x));

function oneOf(found: unknown, allowed: readonly string[]): string {
  const suggestion = typeof found === "string" ? didYouMean(found, allowed) : "";
  return `found ${show(found)}, allowed ${allowed.join(", ")}${suggestion}`;
}

/** The text of an issue, without its location. */
export function describeIssue(issue: v.BaseIssue<unknown>, root: unknown, value: unknown): string {
  const path = (issue.path ?? []).map((p) => String(p.key));
  const last = path[path.length - 1] ?? "";
  if (issue.type === "strict_object" && issue.expected === "never") {
    const allowed = keysAt(root, path.slice(0, -1), value);
    return `unknown key, allowed ${allowed.join(", ")}${didYouMean(last, allowed)}`;
  }
  if (issue.type === "strict_object" && issue.received === "undefined") return "missing, it has no default";
  if (issue.type === "variant") {
    const maps = mapsAt(root, path.slice(0, -1), undefined);
    const kinds = maps.flatMap((s) => (s.entries?.kind ? [String(core(s.entries.kind).literal)] : []));
    const found =
      typeof issue.input === "object" && issue.input !== null
        ? (issue.input as Record<string, unknown>).kind
        : issue.input;
    return oneOf(found, kinds);
  }
  if (issue.type === "picklist") {
    const allowed = (issue.expected ?? "").replace(/^\(|\)$/g, "").split(" | ").map((s) => s.replace(/^"|"$/g, ""));
    return oneOf(issue.input, allowed);
  }
  const limits: Record<string, string> = {
    min_value: "at least",
    max_value: "at most",
    gt_value: "more than",
    lt_value: "less than",
  };
  if (issue.type in limits) {
    const bound = "requirement" in issue ? issue.requirement : undefined;
    return `found ${show(issue.input)}, allowed ${limits[issue.type]} ${show(bound)}`;
  }
  if (issue.type === "integer") return `found ${show(issue.input)}, allowed whole numbers`;
  if (issue.type === "finite") return `found ${show(issue.input)}, allowed finite numbers`;
  if (issue.type === "min_length") return "found an empty value, allowed a value that is not empty";
  if (issue.type === "regex") return `found ${show(issue.input)}, allowed ${issue.message}`;
  return `found ${show(issue.input)}, allowed ${issue.expected ?? issue.message}`;
}
