import { describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { recipeJsonSchema } from "../../core/recipe/json_schema.ts";
import { generate } from "../../ffi/gen.ts";
import { parseHeader } from "../../ffi/parse.ts";
import { OP_CASES } from "../harness/op_cases.ts";

const ROOT = join(import.meta.dir, "../..");
const read = (path: string): string => readFileSync(join(ROOT, path), "utf8");

/** Files of the project: tracked, or untracked and not ignored. */
const files = (() => {
  const r = spawnSync("git", ["ls-files", "--cached", "--others", "--exclude-standard"], {
    cwd: ROOT,
    encoding: "utf8",
  });
  return r.stdout.split("\n").filter((f) => f !== "" && existsSync(join(ROOT, f)));
})();
const sources = files.filter((f) => /\.(ts|cpp|cu|cuh|h)$/.test(f));

/** The room under which a file's offences are listed: a folder of core, csrc or test, else the top folder. */
const roomOf = (path: string): string => path.split("/").slice(0, /^(core|csrc|test)\//.test(path) ? 2 : 1).join("/");

test("there are files to look at", () => expect(sources.length).toBeGreaterThan(80));

describe("ops", () => {
  const verbs = new Map<string, Set<string>>();
  for (const { name } of parseHeader(read("csrc/include/rcm.h"))) {
    const m = /^rcm_(\w+)_(fwd|vjp|jvp)$/.exec(name);
    if (m) verbs.set(m[1], (verbs.get(m[1]) ?? new Set()).add(m[2]));
  }
  const ops = [...verbs.keys()].sort();

  test("every op of the header has all three verbs", () => {
    for (const [op, set] of verbs) expect([op, [...set].sort()]).toEqual([op, ["fwd", "jvp", "vjp"]]);
  });
  // The CPU and GPU tests run every op of the table in test/harness/op_cases.ts.
  test("header, both libraries, core and tests name the same ops", () => {
    const differentiable = readdirSync(join(ROOT, "core/ops")).filter((f) => f.endsWith(".ts"));
    expect(differentiable.map((f) => f.replace(".ts", "")).sort()).toEqual(ops);
    expect(Object.keys(OP_CASES).sort()).toEqual(ops);
    const cpu = readdirSync(join(ROOT, "csrc/cpu/ops")).map((f) => f.replace(/(_vjp)?\.cpp$/, ""));
    expect(ops.filter((op) => !cpu.includes(op))).toEqual([]);
    for (const [name, { op }] of Object.entries(OP_CASES)) expect(op.name).toBe(name);
    const cuda = readdirSync(join(ROOT, "csrc/cuda/ops")).map((f) => f.replace(/\.cu$/, ""));
    expect(ops.filter((op) => !cuda.includes(op))).toEqual([]);
    const shared = readdirSync(join(ROOT, "csrc/shared/ops")).map((f) => f.replace(/\.cpp$/, ""));
    expect(ops.filter((op) => !shared.includes(op))).toEqual([]);
  });
});

describe("native code", () => {
  const native = files.filter((f) => /^csrc\/.*\.(cpp|cu|cuh|h)$/.test(f));
  const ROOMS = [
    "include",
    "shared",
    "shared/ops",
    "comm",
    ...["ops", "runtime", "text", "video"].map((room) => `cpu/${room}`),
    ...["ops", "runtime", "text", "video"].map((room) => `cuda/${room}`),
    ...["attention", "conv", "matmul", "rows", "ptx", "vendor"].map((room) => `cuda/${room}`),
  ];
  test("every file is in a room", () => {
    expect(native.length).toBeGreaterThan(100);
    expect(native.filter((f) => !ROOMS.includes(dirname(f).slice("csrc/".length)))).toEqual([]);
  });
  test("inline assembly is in csrc/cuda/ptx alone", () => {
    expect(native.filter((f) => !f.startsWith("csrc/cuda/ptx/") && /\basm\b/.test(read(f)))).toEqual([]);
  });
  test("neither backend includes the other", () => {
    const includes = (f: string, room: string): boolean => read(f).includes(`#include "${room}/`);
    const across = native.filter((f) => {
      const room = f.split("/")[1];
      return (room !== "cuda" && includes(f, "cuda")) || (room !== "cpu" && includes(f, "cpu"));
    });
    expect(across).toEqual([]);
  });
});

describe("lines", () => {
  const STRING = `(?:"(?:[^"\\\\]|\\\\.)*"|'(?:[^'\\\\]|\\\\.)*'|\`(?:[^\`\\\\]|\\\\.)*\`)`;
  /** One string with what may surround it on a line of its own: a key or a call, commas, brackets and operators. */
  const MESSAGE = new RegExp(`^[\\s(\\[{?:+]*(?:[\\w"-]+: )?(?:\\w+\\()?${STRING}[\\s)\\]},;:+?]*$`);
  /** A row of a table: literals in brackets or braces, without a call. */
  const ROW = new RegExp(`^\\s*(?:[\\w"-]+: )?[\\[{](?:[\\w\\s,:.\\-[\\]{}]|${STRING})*[\\]}],?$`);
  const most = (line: string): number => (MESSAGE.test(line) || ROW.test(line) ? 140 : 120);

  test("only a message or a row of a table may have 140 columns", () => {
    const filled = (before: string, after: string, columns: number): string =>
      before + "x".repeat(columns - before.length - after.length) + after;
    for (const [before, after] of [
      ['    "', '",'],
      ["  want: `", "`,"],
      ['  { a: 1, b: "', '" },'],
      ['  usage("', '");'],
    ]) {
      expect([before, most(filled(before, after, 140))]).toEqual([before, 140]);
    }
    for (const [before, after] of [
      ["  // ", ""],
      ["  const a = ", ";"],
      ['  throw new E("a", ', ");"],
      ['f("', '", a);'],
    ]) {
      expect([before, most(filled(before, after, 121))]).toEqual([before, 120]);
    }
  });
  test("lines have at most 120 columns, messages and tables 140", () => {
    const checked = files.filter((f) => /^(core|cli|ffi|csrc|test)\/.*\.(ts|cpp|cu|cuh|h|sh)$/.test(f));
    const long = new Map<string, string[]>();
    for (const f of checked.filter((f) => !f.endsWith(".gen.ts"))) {
      for (const [i, line] of read(f).split("\n").entries()) {
        if (line.length > most(line)) long.set(roomOf(f), [...(long.get(roomOf(f)) ?? []), `${f}:${i + 1}`]);
      }
    }
    expect(Object.fromEntries(long)).toEqual({});
  });
});

describe("promises", () => {
  test("file ceilings: 400 lines TypeScript, 600 C++", () => {
    const over = sources
      .filter((f) => !f.endsWith(".gen.ts"))
      .map((f) => [f, read(f).split("\n").length - 1] as const)
      .filter(([f, n]) => n > (f.endsWith(".ts") ? 400 : 600));
    expect(over).toEqual([]);
  });
  // A kernel may start before its predecessor has finished (csrc/cuda/runtime/common.cuh): without the wait it would
  // read memory that the predecessor has not written yet.
  test("every CUDA kernel goes through queue_kernel and waits before it touches memory", () => {
    const cuda = sources.filter((f) => /^csrc\/cuda\/.*\.cuh?$/.test(f));
    expect(cuda.filter((f) => read(f).includes("<<<"))).toEqual([]);
    const kernels = cuda.flatMap((f) =>
      read(f)
        .split("__global__")
        .slice(1)
        .map((text) => [f, text.slice(0, text.indexOf("\n}\n"))] as const),
    );
    expect(kernels.length > 0 || cuda.length === 0).toBe(true);
    expect(
      kernels.filter(([, body]) => !body.includes("await_queued();")).map(([f, body]) => [f, body.slice(0, 80)]),
    ).toEqual([]);
  });
  test("environment variables are read in ffi/env.ts, and README lists each", () => {
    const readers = sources.filter((f) => /^(core|cli|ffi)\//.test(f) && /(?:process|Bun)\.env\b/.test(read(f)));
    expect(readers).toEqual(["ffi/env.ts"]);
    const shell = files.filter((f) => f.endsWith(".sh"));
    const native = sources.filter((f) => f.startsWith("csrc/"));
    const named = (f: string, form: RegExp): string[] => [...read(f).matchAll(form)].map(([, name]) => name);
    const names = new Set([
      ...named("ffi/env.ts", /\b(RCM_\w+)/g),
      ...native.flatMap((f) => named(f, /getenv\("(RCM_\w+)"\)/g)),
      ...shell.flatMap((f) => named(f, /\$\{(RCM_\w+)/g)),
    ]);
    expect(names.size).toBeGreaterThan(8);
    const readme = read("README.md");
    expect([...names].filter((name) => !readme.includes(`| \`${name}\` |`))).toEqual([]);
  });
  test("nothing is left undone in the text", () => {
    const marks = new RegExp(["TO" + "DO", "FIX" + "ME", "not " + "implemented"].join("|"));
    expect(sources.filter((f) => marks.test(read(f)))).toEqual([]);
  });
  test("no path of anybody's machine", () => {
    const homes = new RegExp(["/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/\\w"].join("|"));
    const text = files.filter((f) => /\.(ts|cpp|h|md|json|yaml|sh|toml|txt)$/.test(f) || !basename(f).includes("."));
    expect(text.filter((f) => f !== "LICENSE" && homes.test(read(f)))).toEqual([]);
  });
  test("bindings are current", () => {
    expect(read("ffi/rcm.gen.ts")).toBe(generate(readFileSync(join(ROOT, "csrc/include/rcm.h"))));
  });
  test("the recipes' JSON Schema is current", () => {
    expect(JSON.parse(read("recipes/recipe.schema.json"))).toEqual(recipeJsonSchema());
  });
  test("dependencies are exact, and README says why each is there", () => {
    const pkg = JSON.parse(read("package.json"));
    const readme = read("README.md");
    for (const [name, version] of Object.entries<string>({ ...pkg.dependencies, ...pkg.devDependencies })) {
      expect([name, /^\d+\.\d+\.\d+$/.test(version)]).toEqual([name, true]);
      expect([name, readme.includes(`\`${name}\``)]).toEqual([name, true]);
    }
    expect(pkg.license).toBe("Apache-2.0");
    expect(read("LICENSE")).toMatch(/^\s*Apache License\s+Version 2\.0, January 2004\s/);
    expect(read("package-lock.json")).not.toMatch(/"resolved": "(?!https:\/\/registry\.npmjs\.org\/)/);
  });
  test("every recipe loads", async () => {
    const { loadRecipe } = await import("../../core/recipe/load.ts");
    const found = files.filter(
      (f) => f.startsWith("recipes/") && f.endsWith(".yaml") && !/\/(base|distill)\.yaml$/.test(f),
    );
    expect(found.length).toBeGreaterThan(5);
    for (const f of files.filter((f) => f.startsWith("recipes/"))) {
      for (const [, name] of read(f).matchAll(/\$\{(\w+):\?/g)) process.env[name] ??= "unset";
    }
    for (const f of found) expect(loadRecipe(join(ROOT, f)).hash).toMatch(/^[0-9a-f]{16}$/);
  });
});
