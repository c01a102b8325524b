import { describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { FAMILIES } from "../../core/models/families.ts";

const ROOT = join(import.meta.dir, "../..");
const read = (path: string): string => readFileSync(join(ROOT, path), "utf8");
/** Documents that git knows or would take. */
const listed = ["ls-files", "--cached", "--others", "--exclude-standard", "*.md"];
const git = spawnSync("git", listed, { cwd: ROOT, encoding: "utf8" });
const documents = git.stdout.split("\n").filter((f) => f !== "" && existsSync(join(ROOT, f)));

interface Line {
  text: string;
  code: boolean;
}

/** Lines of a document; those of fenced blocks, and their fences, are code. */
function linesOf(path: string): Line[] {
  let code = false;
  return read(path).split("\n").map((text) => {
    const fence = text.startsWith("```");
    const line = { text, code: code || fence };
    if (fence) code = !code;
    return line;
  });
}

describe("every document", () => {
  test("there are documents to look at", () => {
    expect(documents).toEqual(expect.arrayContaining(["README.md", "core/README.md", "recipes/README.md"]));
  });

  test("prose has at most 120 columns, tables and code 140; addresses do not count", () => {
    const most = ({ text, code }: Line): number => (code || text.startsWith("|") ? 140 : 120);
    const long = documents.flatMap((f) =>
      linesOf(f).flatMap((line, i) =>
        line.text.replace(/https?:\/\/[^\s)]+/g, "").length > most(line) ? [`${f}:${i + 1}`] : [],
      ),
    );
    expect(long).toEqual([]);
  });

  /** The anchors that GitHub gives to a document's headings. */
  const anchorsOf = (path: string): string[] =>
    linesOf(path)
      .filter(({ text, code }) => !code && text.startsWith("#"))
      .map(({ text }) => text.toLowerCase().replace(/[^\w\s-]/g, "").trim().replace(/\s/g, "-"));

  test("links lead to files, and to headings in them", () => {
    const broken: string[] = [];
    let links = 0;
    for (const f of documents) {
      const prose = linesOf(f).filter(({ code }) => !code).map(({ text }) => text).join("\n");
      for (const [, to] of prose.matchAll(/\]\(([^)\s]+)\)/g)) {
        if (/^\w+:/.test(to)) continue;
        links++;
        const [path, heading] = to.split("#");
        const target = path === "" ? f : join(dirname(f), path);
        if (!existsSync(join(ROOT, target))) broken.push(`${f}: ${to}`);
        else if (heading && !anchorsOf(target).includes(heading)) broken.push(`${f}: ${to}`);
      }
    }
    expect(links).toBeGreaterThan(8);
    expect(broken).toEqual([]);
  });
});

describe("README.md", () => {
  test("has at most 120 lines and begins with the demo and the tests", () => {
    const lines = linesOf("README.md");
    expect(lines.length - 1).toBeLessThanOrEqual(120);
    const [, first] = read("README.md").split("```");
    expect(first).toContain("npm run demo");
    expect(first).toContain("npm test");
  });

  test("its batch script ends with the status of the run, and requeues 75 alone", () => {
    const script = read("README.md").split(/^```.*$/m).find((block) => block.includes("scontrol requeue")) ?? "";
    expect(script).toMatch(/#SBATCH --signal=/);
    const dir = mkdtempSync(join(tmpdir(), "rcm-batch-"));
    const tool = (name: string, body: string): void => {
      writeFileSync(join(dir, name), `#!/bin/sh\n${body}\n`);
      chmodSync(join(dir, name), 0o755);
    };
    tool("rcm", "exit $END");
    tool("srun", 'exec "$@"');
    tool("scontrol", "echo requeued");
    const env = { ...process.env, PATH: `${dir}:${process.env.PATH}`, SLURM_JOB_ID: "7" };
    const run = (status: number) => {
      const r = spawnSync("bash", ["-c", script], { env: { ...env, END: String(status) }, encoding: "utf8" });
      return [r.status, r.stdout.trim()];
    };
    expect([0, 3, 5, 75].map(run)).toEqual([[0, ""], [3, ""], [5, ""], [75, "requeued"]]);
    rmSync(dir, { recursive: true });
  });
});

describe("core/README.md", () => {
  const text = read("core/README.md");

  test("describes every room once, in the order of the layers", () => {
    // The list as text: importing a test file would run its tests again.
    const [list] = /(?<=LAYERS[^=]*= )\[.*?^\]/ms.exec(read("test/repo/rooms.test.ts")) ?? [""];
    const layers = [...list.matchAll(/\[([^\][]+)\]/g)].map(([, rooms]) =>
      [...rooms.matchAll(/"([\w/]+)"/g)].map(([, room]) => room),
    );
    expect(layers.length).toBeGreaterThan(15);
    const present = (room: string): boolean => existsSync(join(ROOT, "core", room.endsWith("/") ? room : `${room}.ts`));
    const rooms = layers.flatMap((layer, i) => layer.filter(present).map((room) => `${i + 1} ${room}`));
    const rows = [...text.matchAll(/^\| (\d+) \| `([\w/]+)` \| \S.+ \|$/gm)];
    expect(rows.map(([, layer, room]) => `${layer} ${room}`)).toEqual(rooms);
    const folders = readdirSync(join(ROOT, "core"), { withFileTypes: true }).filter((f) => f.isDirectory());
    expect(folders.map((f) => `${f.name}/`).filter((room) => !layers.flat().includes(room))).toEqual([]);
  });

  /** The names that a placeholder covers: every existing one. */
  const NAMES: Record<string, string[]> = {
    "<op>": readdirSync(join(ROOT, "core/ops")).filter((f) => f.endsWith(".ts")).map((f) => f.replace(".ts", "")),
    "<family>": Object.keys(FAMILIES),
    "<loss>": ["scm", "dcm", "dmd", "meanflow"],
    "<sampler>": ["euler", "unipc", "meanflow"],
  };
  const filled = (path: string): string[] => {
    const [placeholder] = /<\w+>/.exec(path) ?? [""];
    return placeholder === "" ? [path] : NAMES[placeholder].map((name) => path.replaceAll(placeholder, name));
  };
  const lists = text.slice(text.indexOf("## Checklists")).split(/^### /m).slice(1).map((list) => {
    const [title, ...rest] = list.split("\n");
    return { title, items: rest.join("\n").split(/^\d\. /m).slice(1) };
  });

  test("has the five checklists, of five items each", () => {
    const sizes = lists.map(({ title, items }) => [title, items.length]);
    expect(sizes).toEqual([["An op", 5], ["A family", 5], ["A loss", 5], ["A sampler", 5], ["A recipe key", 5]]);
  });

  for (const { title, items } of lists) {
    test(`${title}: each item names places that exist, and what to look for in them`, () => {
      for (const item of items) {
        const marked = [...item.matchAll(/`([^`\s]+)`/g)].map(([, name]) => name);
        const paths = marked.filter((name) => /\/|\.\w+$/.test(name)).flatMap(filled);
        expect([item, paths.length]).not.toEqual([item, 0]);
        expect([title, paths.filter((path) => !existsSync(join(ROOT, path)))]).toEqual([title, []]);
        const contents = paths.map(read).join("\n");
        const words = marked.filter((name) => /^\w+$/.test(name));
        expect([item, words.filter((word) => !new RegExp(`\\b${word}\\b`).test(contents))]).toEqual([item, []]);
      }
    });
  }
});
