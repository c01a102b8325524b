import { describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

/**
 * The layers of core: a file imports only files of earlier layers or of its own room, never of another room of the same
 * layer. A name without a slash is a file of core, the others are folders. core/README.md describes each.
 */
export const LAYERS: readonly (readonly string[])[] = [
  ["error", "env", "units"], ["dtype", "shape"], ["rng"], ["tensor"], ["stream"], ["op"], ["tape"],
  ["ops/", "io/", "metrics/"],
  ["nn/"],
  ["diffusion/", "optim/", "parallel/"],
  ["models/", "losses/", "samplers/"],
  ["recipe/", "weights/"],
  ["text/", "video/"],
  ["data/"],
  ["networks/"],
  ["train/", "sample/", "synth/", "export/"],
  ["eval/", "bench/"],
  ["demo", "doctor"],
];

const ROOT = join(import.meta.dir, "../..");
const read = (path: string): string => readFileSync(join(ROOT, path), "utf8");
const files = spawnSync("git", ["ls-files", "--cached", "--others", "--exclude-standard", "*.ts"], {
  cwd: ROOT,
  encoding: "utf8",
})
  .stdout.split("\n")
  .filter((f) => f !== "" && existsSync(join(ROOT, f)));
const core = files.filter((f) => f.startsWith("core/"));
const imports = (path: string): string[] =>
  [...read(path).matchAll(/(?:from|import)\s*\(?"(\.[^"]+\.ts)"/g)].map((m) => join(path, "..", m[1]));

const roomOf = (path: string): string => {
  const parts = path.split("/").slice(1);
  return parts.length === 1 ? parts[0].replace(/\.ts$/, "") : `${parts[0]}/`;
};
const layerOf = (room: string): number => LAYERS.findIndex((layer) => layer.includes(room));

describe("rooms", () => {
  test("there are files to look at", () => expect(core.length).toBeGreaterThan(150));

  test("cli -> core -> ffi, and nobody imports test; cli reaches ffi through core", () => {
    const rank = (p: string): number => ["test", "cli", "core", "ffi"].indexOf(p.split("/")[0]);
    const back = files.flatMap((f) =>
      imports(f)
        .filter((to) => rank(to) >= 0 && rank(to) < rank(f))
        .map((to) => `${f} -> ${to}`),
    );
    expect(back).toEqual([]);
    const skipping = files
      .filter((f) => f.startsWith("cli/"))
      .flatMap((f) => imports(f).filter((to) => to.startsWith("ffi/")));
    expect(skipping).toEqual([]);
  });

  // ops/nondiff holds the functions of rcm.h that have no derivatives.
  test("the device library is touched by tensor, stream, ops and parallel alone", () => {
    const allowed = /^core\/(?:tensor\.ts|stream\.ts|ops\/|parallel\/)/;
    const others = files.filter((f) => /^(?:core|cli)\//.test(f) && !allowed.test(f));
    expect(others.length).toBeGreaterThan(100);
    expect(others.filter((f) => /\blib\b/.test(read(f).replace(/(?:"[^"\n]*"|\/\/.*)/g, "")))).toEqual([]);
    const native = /^ffi\/(?:call|memory|rcm\.gen)\.ts$/;
    const imported = others.filter((f) => imports(f).some((to) => native.test(to)));
    expect(imported).toEqual(["core/dtype.ts"]); // the type of a dtype's code
  });

  test("every file of core is in a room of the list", () => {
    expect(core.filter((f) => layerOf(roomOf(f)) < 0)).toEqual([]);
  });

  test("imports point to earlier layers; rooms of one layer are strangers", () => {
    const broken = core.flatMap((f) =>
      imports(f)
        .filter((to) => to.startsWith("core/") && roomOf(to) !== roomOf(f) && layerOf(roomOf(to)) >= layerOf(roomOf(f)))
        .map((to) => `${f} -> ${to}`),
    );
    expect(broken).toEqual([]);
  });

  /** Code without comments, and without strings unless they count. */
  const codeOf = (path: string, strings: boolean): string =>
    read(path).replace(
      /\/\*[^]*?\*\/|\/\/[^\n]*|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`/g,
      (part) => (part.startsWith("/") || !strings ? "" : part),
    );
  /** A family's name as a whole word, or as a part of a name in camelCase, snake_case or capitals. */
  const FAMILY = /(?<![A-Za-z])wan(?![a-z])|Wan(?![a-z])|(?<![A-Z])WAN(?![A-Z])|[Uu][Mm][Tt]5/;

  test("the name of a family is recognised as a part of a name, not inside a word", () => {
    for (const name of [
      "wan",
      "wan2.1-14b",
      "wanVae",
      "isWan",
      "WanNet",
      "WAN_VIDEO",
      "tiny_wan",
      "umt5",
      "UMT5",
      "../wan/a",
    ]) {
      expect([name, FAMILY.test(name)]).toEqual([name, true]);
    }
    for (const name of ["want", "wanted", "unwanted", "Unwanted", "WANTED", "swan", "SWAN", "wanders", "gwan"]) {
      expect([name, FAMILY.test(name)]).toEqual([name, false]);
    }
  });

  test("outside core/models no code names a family: in core not even in a string", () => {
    const others = files.filter((f) => /^(core|cli)\//.test(f) && !f.startsWith("core/models/"));
    expect(others.length).toBeGreaterThan(100);
    expect(others.filter((f) => FAMILY.test(codeOf(f, f.startsWith("core/"))))).toEqual([]);
    expect(core.filter((f) => f.startsWith("core/models/") && FAMILY.test(codeOf(f, true))).length).toBeGreaterThan(5);
  });

  test("no file of a room imports in a circle", () => {
    const state = new Map<string, "open" | "done">();
    const circles: string[] = [];
    const visit = (f: string, path: string[]): void => {
      if (state.get(f) === "done") return;
      if (state.get(f) === "open") return void circles.push([...path.slice(path.indexOf(f)), f].join(" -> "));
      state.set(f, "open");
      for (const to of imports(f).filter((t) => t.startsWith("core/"))) visit(to, [...path, f]);
      state.set(f, "done");
    };
    for (const f of core) visit(f, []);
    expect(circles).toEqual([]);
  });

  test("a name that core exports means one thing", () => {
    const homes = new Map<string, string[]>();
    for (const f of core) {
      for (const [, name] of read(f).matchAll(
        /^export (?:async )?(?:abstract )?(?:const|let|function\*?|class|interface|type|enum) (\w+)/gm,
      )) {
        if (!homes.get(name)?.includes(f)) homes.set(name, [...(homes.get(name) ?? []), f]);
      }
    }
    expect([...homes].filter(([, at]) => at.length > 1).map(([name, at]) => `${name}: ${at.join(", ")}`)).toEqual([]);
  });
});
