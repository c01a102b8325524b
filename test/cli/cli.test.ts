import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawn, spawnSync } from "node:child_process";
import {
  chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readSafetensors } from "../../core/io/safetensors.ts";

const ROOT = join(import.meta.dir, "../..");
const RCM = join(ROOT, "cli/rcm");
let dir = "";
let base: string[] = [];

const rcm = (args: string[], env: Record<string, string> = {}) => {
  const r = spawnSync("sh", [RCM, ...args], {
    encoding: "utf8", cwd: dir, env: { ...process.env, ...env }, timeout: 300_000,
  });
  return { status: r.status, out: r.stdout, err: r.stderr };
};

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "rcm-cli-"));
  expect(rcm(["data", "digits", "--limit", "200", "--test-limit", "120", "--out", "digits", "-q"]).status).toBe(0);
  base = [
    join(ROOT, "recipes/digits/scm.yaml"), "--set", `data.path=${dir}/digits/train`, "--set",
    `eval.data=${dir}/digits/test`, "--set", "train.batch=2", "--set", "train.sample_every=0",
  ];
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

describe("the command line", () => {
  test("help and version", () => {
    for (const args of [["--help"], ["distill", "--help"], ["data", "--help"], ["data", "digits", "--help"]]) {
      const r = rcm(args);
      expect(r.status).toBe(0);
      expect(r.out).toContain("USAGE");
    }
    expect(rcm(["--version"]).out).toMatch(/^\d+\.\d+\.\d+\n$/);
    expect(rcm([]).status).toBe(2);
  });

  test("wrong usage: exit 2 and a suggestion", () => {
    const cases: [string[], string][] = [
      [["distil"], 'did you mean "distill"'],
      [["distill", "x.yaml", "--resum"], 'did you mean "--resume"'],
      [["distill", "x.yaml", "y.yaml"], 'unexpected argument "y.yaml"'],
      [["distill"], "RECIPE"],
      [["sample", base[0], "--weights", "x", "--steps", "four"], "--steps"],
      [["doctor", "--device", "gpu"], "auto, cpu, cuda"],
      [["distill", base[0], "--set", "train.stepz=3"], 'did you mean "steps"'],
      [["distill", base[0], "--set"], "needs a value"],
    ];
    for (const [args, text] of cases) {
      const r = rcm(args);
      expect([args, r.status]).toEqual([args, 2]);
      expect(r.err.toLowerCase()).toContain(text.toLowerCase());
      expect(r.out).toBe("");
    }
  });

  test("errors as JSON: one document on stdout", () => {
    const r = rcm(["distill", "missing.yaml", "--json"]);
    expect(r.status).toBe(3);
    expect(JSON.parse(r.out).error).toMatchObject({ code: "E_IO", exit: 3 });
    expect(r.err).not.toContain("    at ");
  });

  test("a device whose library is not there: exit 6 and the command to run", () => {
    if (existsSync(join(ROOT, "build/lib/librcm_cuda.so"))) {
      console.log("skipped: missing library: the CUDA library is built here");
      return;
    }
    const r = rcm(["distill", ...base, "--device", "cuda", "--out", "nocuda"]);
    expect(r.status).toBe(6);
    expect(r.err).toContain("npm run build");
  });

  test("doctor", () => {
    const r = rcm(["doctor", "--json"]);
    expect(r.status).toBe(0);
    expect(JSON.parse(r.out).checks.find((c: { name: string }) => c.name === "native library").ok).toBe(true);
  });

  test("distill, sample, eval and export of a short run; quiet without a terminal", () => {
    const d = rcm(["distill", ...base, "--set", "train.steps=4", "--out", "run", "--json"]);
    expect(d.status).toBe(0);
    expect(JSON.parse(d.out)).toMatchObject({ steps: 4 });
    expect(d.err).not.toContain("\x1b[");
    const s = rcm([
      "sample", "run/recipe.yaml", "--weights", "run", "--steps", "2", "--prompt", "a handwritten seven", "--prompt",
      "a handwritten one", "--each", "3", "--out", "pics", "--json", "-q",
    ]);
    expect(s.err).toBe("");
    expect(JSON.parse(s.out).files.length).toBe(6);
    expect(readFileSync(join(dir, "pics/grid.png")).subarray(1, 4).toString()).toBe("PNG");
    const batched = rcm([
      "sample", "run/recipe.yaml", "--weights", "run", "--steps", "2", "--prompt", "a handwritten seven", "--prompt",
      "a handwritten one", "--each", "3", "--batch", "4", "--out", "pics2", "-q",
    ]);
    expect(batched.status).toBe(0);
    for (const f of ["000000.png", "000005.png"])
      expect(Buffer.compare(readFileSync(join(dir, "pics", f)), readFileSync(join(dir, "pics2", f)))).toBe(0);
    const sampled = (out: string, ...more: string[]) =>
      rcm([
        "sample", "run/recipe.yaml", "--weights", "run", "--prompt", "a handwritten one", "--out", out, "--json", "-q",
        ...more,
      ]);
    const long = JSON.parse(sampled("long", "--steps", "6", "--sampler", "ode").out);
    expect(long).toMatchObject({ evaluations: 6, files: ["long/000000.png"] });
    const guided = sampled("guided", "--teacher", "--steps", "2", "--sampler", "unipc", "--guidance", "3");
    expect(JSON.parse(guided.out)).toMatchObject({ evaluations: 4 });
    expect(readFileSync(join(dir, "long/grid.png")).equals(readFileSync(join(dir, "guided/grid.png")))).toBe(false);
    const e = rcm([
      "eval", "run/recipe.yaml", "--weights", "run", "--samples", "100", "--steps", "1,2", "--set",
      "sample.teacher_steps=3", "--out", "ev", "--json", "-q",
    ]);
    expect(e.status).toBe(0);
    const report = JSON.parse(e.out);
    expect(report.rows.map((r: { steps: number }) => r.steps)).toEqual([1, 2]);
    for (const row of [report.teacher, ...report.rows])
      for (const k of ["fd", "precision", "recall", "vendi", "agreement"]) expect(Number.isFinite(row[k])).toBe(true);
    expect(readFileSync(join(dir, "ev/report.html"), "utf8")).toContain("</html>");
    const x = rcm(["export", "run", "--out", "w.safetensors", "--json"]);
    expect(JSON.parse(x.out)).toMatchObject({ dtype: "bf16" });
    expect(readSafetensors(join(dir, "w.safetensors")).metadata.recipe).toBe("digits-scm");
    expect(rcm(["sample", "run/recipe.yaml", "--weights", "w.safetensors", "--out", "pics3", "-q"]).status).toBe(0);
    expect(rcm(["export", "run", "--out", "w.onnx"]).status).toBe(2);
  }, 600_000);

  for (const signal of ["SIGTERM", "SIGUSR1"] as const) {
    test(`${signal}: a checkpoint, exit 75, and --resume goes on to the end`, async () => {
      const out = `stopped-${signal}`;
      const args = [
        "distill", ...base, "--set", "train.steps=30", "--set", "train.log_every=1", "--set",
        "train.checkpoint_every=1000", "--out", out,
      ];
      const child = spawn("sh", [RCM, ...args], { cwd: dir, stdio: ["ignore", "pipe", "pipe"] });
      const status = await new Promise<number | null>((resolve) => {
        let sent = false;
        child.stderr.on("data", (d: Buffer) => {
          if (!sent && /^3\/30/m.test(d.toString())) {
            sent = true;
            child.kill(signal);
          }
        });
        child.on("exit", resolve);
      });
      expect(status).toBe(75);
      expect(readdirSync(join(dir, out, "checkpoints")).length).toBe(1);
      expect(rcm([...args, "--resume"]).status).toBe(0);
    }, 600_000);
  }

  test("kill -9 around checkpoints loses nothing: all files load, and the run ends as an undisturbed one", async () => {
    const sets = [
      ...base, "--set", "train.steps=16", "--set", "train.checkpoint_every=1", "--set", "train.keep_checkpoints=2",
      "--set", "optimizer.warmup_steps=2",
    ];
    const begin = performance.now();
    expect(rcm(["distill", ...sets, "--out", "calm", "-q"]).status).toBe(0);
    const calm = performance.now() - begin;
    for (let round = 0; round < 4; round++) {
      const child = spawn("sh", [RCM, "distill", ...sets, "--out", "killed", "--resume", "-q"], {
        cwd: dir,
        stdio: "ignore",
      });
      const ended = new Promise((resolve) => child.on("exit", resolve));
      await Promise.race([ended, Bun.sleep(calm * (0.4 + 0.1 * round))]);
      child.kill("SIGKILL");
      await ended;
      const folder = join(dir, "killed/checkpoints");
      for (const f of existsSync(folder)
        ? readdirSync(folder).filter((n) => n.endsWith(".safetensors") && !n.startsWith("."))
        : []) {
        expect(readSafetensors(join(folder, f)).metadata.format).toBe("rcm-checkpoint");
      }
    }
    expect(rcm(["distill", ...sets, "--out", "killed", "--resume", "-q"]).status).toBe(0);
    const last = "checkpoints/checkpoint_000000016.safetensors";
    expect(Buffer.compare(readFileSync(join(dir, "killed", last)), readFileSync(join(dir, "calm", last)))).toBe(0);
  }, 600_000);

  test("a full disk: clear error, exit 3, the last checkpoint stays whole", () => {
    const mount = join(dir, "tiny");
    mkdirSync(mount);
    if (spawnSync("mount", ["-t", "tmpfs", "-o", "size=40m", "tmpfs", mount]).status !== 0) {
      console.log("skipped: full disk: this test needs to mount a tmpfs (root)");
      return;
    }
    try {
      const args = [
        "distill", ...base, "--set", "train.steps=12", "--set", "train.checkpoint_every=1", "--set",
        "train.keep_checkpoints=9", "--out", "tiny/run",
      ];
      const r = rcm(args);
      expect(r.status).toBe(3);
      expect(r.err).toContain("disk full");
      const kept = readdirSync(join(mount, "run/checkpoints"));
      expect(kept.length).toBeGreaterThan(0);
      for (const f of kept)
        expect(readSafetensors(join(mount, "run/checkpoints", f)).metadata.format).toBe("rcm-checkpoint");
    } finally {
      spawnSync("umount", [mount]);
    }
  }, 600_000);

  test("bad inputs name file and place, exit 2 or 3, and leave files alone", () => {
    writeFileSync(join(dir, "bad.yaml"), "name: x\nmodel: {preset: wan-digits, hedas: 2}\n");
    const bad = rcm(["distill", "bad.yaml"]);
    expect([bad.status, bad.err.includes('bad.yaml:2:29 model.hedas: unknown key')]).toEqual([2, true]);

    mkdirSync(join(dir, "cut"));
    const shard = readFileSync(join(dir, "digits/train/shard_000000.tar"));
    writeFileSync(join(dir, "cut/shard_000000.tar"), shard.subarray(0, 100_000));
    const cut = rcm(["distill", base[0], "--set", `data.path=${dir}/cut`, "--out", "cutrun"]);
    expect([cut.status, cut.err.includes("shard_000000.tar")]).toEqual([3, true]);

    writeFileSync(
      join(dir, "broken.safetensors"),
      readFileSync(join(ROOT, "recipes/digits/teacher.safetensors")).subarray(0, 4000),
    );
    const broken = rcm([
      "distill", ...base, "--set", `teacher.weights=${dir}/broken.safetensors`, "--out", "brokenrun",
    ]);
    expect([broken.status, broken.err.includes("broken.safetensors")]).toEqual([3, true]);

    const wrong = rcm(["distill", ...base, "--set", "model.dim=64", "--out", "wrongrun"]);
    expect([
      wrong.status,
      wrong.err.includes("of another shape (patch_embedding.weight want [64,16] got f32 [128,16]"),
    ]).toEqual([3, true]);
    expect(statSync(join(dir, "digits/train/shard_000000.tar")).size).toBe(shard.length);
  }, 600_000);

  test("a run folder that cannot be written", () => {
    if (process.getuid?.() === 0) {
      console.log("skipped: unwritable folder: root may write anywhere");
      return;
    }
    mkdirSync(join(dir, "locked"));
    chmodSync(join(dir, "locked"), 0o500);
    expect(rcm(["distill", ...base, "--out", "locked/run"]).status).toBe(3);
  });
});
