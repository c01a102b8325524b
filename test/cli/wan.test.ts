import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hostValues } from "../../core/dtype.ts";
import { readShard } from "../../core/io/webdataset.ts";
import { writeText } from "../harness/tiny_files.ts";
import { TINY_SETS, TINY_SHAPE, writeTinyTeacher, writeTinyTexts } from "../harness/wan_twin.ts";

const ROOT = join(import.meta.dir, "../..");
const RCM = join(ROOT, "cli/rcm");
const SAMPLES = 7;
let dir = "";
let env: Record<string, string> = {};
let synth: string[] = [];

const rcm = (args: string[]) => {
  const r = spawnSync("sh", [RCM, ...args], {
    encoding: "utf8", cwd: dir, env: { ...process.env, ...env }, timeout: 300_000,
  });
  return { status: r.status, out: r.stdout, err: r.stderr };
};
const sets = (extra: string[]): string[] => [...TINY_SETS, ...extra].flatMap((s) => ["--set", s]);
const shards = (folder: string): Buffer[] =>
  readdirSync(join(dir, folder))
    .filter((f) => f.endsWith(".tar"))
    .sort()
    .map((f) => readFileSync(join(dir, folder, f)));

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "rcm-wan-"));
  mkdirSync(join(dir, "texts"));
  writeTinyTeacher(join(dir, "teacher.pth"), 3);
  const t = writeTinyTexts(join(dir, "texts"), SAMPLES);
  env = { WAN_TEACHER: join(dir, "teacher.pth"), WAN_DATA: join(dir, "data"), WAN_NEGATIVE_EMBED: t.negative };
  synth = [
    "data", "synth", "--weights", "teacher.pth", "--prompts", t.prompts, "--embeds", t.embeds, "--negative-embeds",
    t.negative, "--shape", TINY_SHAPE.join(","), "--steps", "6", "--per-shard", "3", "--device", "cpu", "--json",
    "-q",
  ];
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

describe("a data set from a teacher", () => {
  test("synth writes the public format; run again it keeps everything", () => {
    const first = rcm([...synth, "--out", "set"]);
    expect([first.status, first.err]).toEqual([0, ""]);
    expect(JSON.parse(first.out)).toMatchObject({ samples: SAMPLES, kept: 0, shards: 3 });
    const files = readdirSync(join(dir, "set")).sort();
    expect(files).toEqual(["shard_000000.tar", "shard_000001.tar", "shard_000002.tar", "synth.json"]);
    const all = ["0", "1", "2"].flatMap((n) => readShard(join(dir, "set", `shard_00000${n}.tar`)));
    expect(all.map((s) => s.key)).toEqual(Array.from({ length: SAMPLES }, (_, i) => String(i).padStart(9, "0")));
    expect(all.map((s) => s.prompt)).toEqual(Array.from({ length: SAMPLES }, (_, i) => `prompt number ${i}`));
    for (const { latent, embed } of all)
      expect([latent.dtype, latent.shape, embed.dtype, embed.shape]).toEqual(["bf16", TINY_SHAPE, "bf16", [512, 4096]]);
    expect(new Set(all.map((s) => Buffer.from(s.latent.data).toString("hex"))).size).toBe(SAMPLES);
    const before = shards("set");
    const spelled = synth.map((word) => (word === "--negative-embeds" ? "--negative-embed" : word));
    expect(JSON.parse(rcm([...spelled, "--out", "set"]).out)).toMatchObject({ samples: SAMPLES, kept: SAMPLES });
    expect(shards("set")).toEqual(before);
  }, 300_000);

  test("jobs of an array write disjoint shards that are those of one job; other batches too", () => {
    for (const job of ["0/2", "1/2"]) expect(rcm([...synth, "--out", "array", "--shard", job]).status).toBe(0);
    expect(shards("array")).toEqual(shards("set"));
    expect(rcm([...synth, "--out", "batched", "--batch", "2", "--dtype", "f32"]).status).toBe(0);
    expect(rcm([...synth, "--out", "single", "--dtype", "f32"]).status).toBe(0);
    const values = (folder: string) =>
      readShard(join(dir, folder, "shard_000000.tar")).flatMap((s) => Array.from(hostValues(s.latent)));
    const [one, two] = [values("single"), values("batched")];
    // A batch of two may round the last bit of bf16 differently.
    expect(Math.max(...one.map((v, i) => Math.abs(v - two[i]) / (Math.abs(v) + 1e-3)))).toBeLessThan(2 ** -7);
  }, 300_000);

  test("embeddings of a set made before give the same set; prompts are encoded once and kept", () => {
    const without = (flag: string): string[] =>
      synth.flatMap((word, i) => (word === flag || synth[i - 1] === flag ? [] : [word]));
    expect(rcm([...without("--embeds"), "--embeds", "set", "--out", "again"]).status).toBe(0);
    expect(shards("again")).toEqual(shards("set"));
    const files = writeText(dir, 4096);
    const own = [
      ...without("--embeds").filter((w, i, all) => w !== "--negative-embeds" && all[i - 1] !== "--negative-embeds"),
      "--text-encoder",
      files.weights,
      "--tokenizer",
      files.tokenizer,
      "--text-cache",
      "cache",
      "--negative-prompt",
      "blurred",
      "--limit",
      "2",
    ];
    expect(JSON.parse(rcm([...own, "--out", "encoded"]).out)).toMatchObject({ samples: 2, shards: 1 });
    const [one] = readShard(join(dir, "encoded/shard_000000.tar"));
    expect([one.embed.dtype, one.embed.shape]).toEqual(["bf16", [512, 4096]]);
    expect(one.embed.data.some((b) => b !== 0)).toBe(true);
    expect(one.embed.data.subarray(one.embed.data.length / 2).every((b) => b === 0)).toBe(true);
    expect(readdirSync(join(dir, "cache")).length).toBeGreaterThan(0);
    const none = rcm([...without("--embeds"), "--out", "none"]);
    expect([none.status, JSON.parse(none.out).error.message.includes("--text-encoder")]).toEqual([2, true]);
  });

  test("other settings in the same folder are refused and named", () => {
    const r = rcm([...synth, "--out", "set", "--shift", "5"]);
    expect(r.status).toBe(3);
    expect(JSON.parse(r.out).error.message).toContain('"shift": 5');
    expect(rcm([...synth, "--out", "x", "--shard", "2/2"]).status).toBe(2);
    expect(rcm([...synth, "--out", "x", "--negative-prompt", "both"]).status).toBe(2);
    expect(rcm([...synth, "--out", "x", "--shape", "8,3,4,6"]).status).toBe(2);
  }, 300_000);

  test("SIGTERM: exit 75, whole samples stay, the same command goes on to the same bytes", async () => {
    const args = synth.filter((a) => a !== "-q" && a !== "--json");
    const child = spawn("sh", [RCM, ...args, "--out", "stopped"], {
      cwd: dir, env: { ...process.env, ...env }, stdio: ["ignore", "ignore", "pipe"],
    });
    const exited = new Promise<number | null>((resolve) => child.once("exit", resolve));
    await new Promise<void>((resolve) =>
      child.stderr.on("data", (text) => String(text).includes(`1/${SAMPLES} `) && resolve()),
    );
    child.kill("SIGTERM");
    expect(await exited).toBe(75);
    const left = readdirSync(join(dir, "stopped"));
    expect(left.some((f) => f.endsWith(".tar.tmp") || f.endsWith(".tar"))).toBe(true);
    const r = JSON.parse(rcm([...synth, "--out", "stopped"]).out);
    expect(r.kept).toBeGreaterThan(0);
    expect(shards("stopped")).toEqual(shards("set"));
    expect(readdirSync(join(dir, "stopped")).filter((f) => f.endsWith(".tmp"))).toEqual([]);
  }, 300_000);

  test("merge reshards and inspect finds nothing wrong", () => {
    const m = rcm([
      "data", "merge", "--from", "array", "--from", "set", "--out", "data", "--per-shard", "4", "--json", "-q",
    ]);
    expect(JSON.parse(m.out)).toMatchObject({ samples: SAMPLES, shards: 2, duplicates: SAMPLES });
    const i = rcm(["data", "inspect", "data", "--sheet", "sheet.png", "--statistics", "0", "--json", "-q"]);
    expect(i.status).toBe(0);
    const report = JSON.parse(i.out);
    expect(report).toMatchObject({
      samples: SAMPLES, shards: 2, ok: true, duplicateKeys: 0, nonfinite: 0, statisticsSamples: SAMPLES,
      embedTokens: { least: 4, most: 4 + SAMPLES - 1 },
    });
    expect(Object.keys(report.latents)).toEqual([`[${TINY_SHAPE.join(", ")}] bf16`]);
    expect(report.channels.length).toBe(16);
    expect(report.channels.every((c: { std: number }) => c.std > 0.1 && c.std < 10)).toBe(true);
    expect(readFileSync(join(dir, "sheet.png")).subarray(1, 4).toString()).toBe("PNG");
    expect(rcm(["data", "merge", "--from", "set", "--out", "data", "-q"]).status).toBe(3);
  }, 300_000);
});

describe("a Wan2.1 recipe's twin from end to end", () => {
  const recipe = join(ROOT, "recipes/wan2.1/t2v-1.3b-480p.yaml");
  const tiny = sets(["objective.consistency.tangent_warmup=3", "objective.dmd.student_every=2", "data.frames=2"]);

  test("a variable that is not set is named with what it is", () => {
    const { WAN_TEACHER: _, ...rest } = env;
    const r = spawnSync("sh", [RCM, "distill", recipe, "--dry-run"], {
      encoding: "utf8", cwd: dir, env: { ...process.env, ...rest, WAN_TEACHER: "" },
    });
    expect(r.status).toBe(2);
    expect(r.stderr).toContain("WAN_TEACHER is not set; set WAN_TEACHER to the checkpoint");
  }, 300_000);

  test("dry run: checks pass, nothing is written; what does not fit is told before any allocation", () => {
    const ok = rcm(["distill", recipe, ...tiny, "--dry-run", "--device", "cpu", "--out", "dry", "--json"]);
    expect(ok.status).toBe(0);
    const plan = JSON.parse(ok.out);
    expect(plan.weights).toMatchObject([{ role: "teacher", format: "torch" }]);
    expect(plan.memory.fits).toBe(true);
    expect(existsSync(join(dir, "dry"))).toBe(false);
    const big = rcm([
      "distill", recipe, "--dry-run", "--device", "cuda", "--memory", "40GiB", "--json", "--out", "dry",
    ]);
    expect(big.status).toBe(3);
    const problems: string[] = JSON.parse(big.out).problems;
    expect(problems.some((p) => p.startsWith("teacher: ") && p.includes("patch_embedding.weight want [1536,64]"))).toBe(
      true,
    );
    expect(problems.some((p) => p.startsWith("data: ") && p.includes("latent of sample"))).toBe(true);
    expect(problems.some((p) => p.startsWith("memory: 5") && p.includes("40.0 GiB are there"))).toBe(true);
    expect(rcm(["distill", recipe, ...tiny, "--memory", "40GiB"]).status).toBe(2);
  }, 300_000);

  test("distill through warm-up and critic, stop, resume, sample, export", () => {
    const whole = rcm(["distill", recipe, ...tiny, "--device", "cpu", "--out", "whole", "--json", "-q"]);
    expect([whole.status, whole.err]).toEqual([0, ""]);
    const half = rcm([
      "distill", recipe, ...tiny, "--set", "train.steps=5", "--device", "cpu", "--out", "parts", "--json", "-q",
    ]);
    expect(half.status).toBe(0);
    const rest = rcm(["distill", recipe, ...tiny, "--device", "cpu", "--out", "parts", "--resume", "--json", "-q"]);
    expect(JSON.parse(rest.out)).toMatchObject({ steps: 8 });
    const last = (run: string): Buffer => readFileSync(join(dir, run, "checkpoints/checkpoint_000000008.safetensors"));
    expect(Buffer.compare(last("whole"), last("parts"))).toBe(0);
    const lines = readFileSync(join(dir, "whole/metrics.jsonl"), "utf8").trim().split("\n").map((l) => JSON.parse(l));
    expect(lines.map((l) => l.kind)).toEqual([
      "student", "student", "student", "student", "critic", "student", "critic", "student",
    ]);
    expect(lines.every((l) => Object.values(l).every((v) => typeof v === "string" || Number.isFinite(v)))).toBe(true);
    const x = rcm(["export", "whole", "--out", "student.safetensors", "--json"]);
    expect(x.status).toBe(0);
    const s = rcm([
      "sample", recipe, ...tiny, "--weights", "whole", "--steps", "2", "--prompt", "prompt number 1", "--embeds",
      "texts/000000001.embed.pt", "--size", "48x32", "--frames", "5", "--latents-only", "--dtype", "f32", "--device",
      "cpu", "--out", "drawn", "--json", "-q",
    ]);
    expect([s.status, s.err]).toEqual([0, ""]);
    const again = rcm([
      "distill", recipe, ...tiny, "--set", `model.init=${dir}/student.safetensors`, "--set", "train.steps=1",
      "--device", "cpu", "--out", "again", "--json", "-q",
    ]);
    expect(again.status).toBe(0);
  }, 300_000);
});
