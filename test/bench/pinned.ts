/**
 * Hashes of the results of tiny runs: checkpoints after 50 iterations of every digits recipe and of small versions of
 * the Wan recipes, and samples of every kind, all through the command line. To check that a change keeps results
 * bitwise, run it before and after:
 *
 *   sh cli/bun.sh test/bench/pinned.ts --device cpu --out before.json
 *   sh cli/bun.sh test/bench/pinned.ts --device cpu --against before.json
 *
 * Hashes are comparable on one machine only: processors and BLAS libraries round differently.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { writeText } from "../harness/tiny_files.ts";
import { TINY_SETS, TINY_SHAPE, writeTinyTeacher, writeTinyTexts, writeTinyVae } from "../harness/wan_twin.ts";

const { values: o } = parseArgs({
  options: {
    device: { type: "string", default: "cpu" },
    steps: { type: "string", default: "50" },
    out: { type: "string" },
    against: { type: "string" },
  },
});
const ROOT = join(import.meta.dir, "../..");
const dir = mkdtempSync(join(tmpdir(), "rcm-pinned-"));
const hashes: Record<string, string> = {};
const sha = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex").slice(0, 24);

/** Paths that the Wan recipes read from the environment. */
const inputs: Record<string, string> = {};

/** Runs a command that takes no device. */
function rcmHost(...args: string[]): void {
  const env = { ...process.env, WAN_TEXT_CACHE: "", ...inputs };
  const r = spawnSync("sh", [join(ROOT, "cli/rcm"), ...args, "-q"], { encoding: "utf8", cwd: dir, env });
  if (r.status !== 0) throw new Error(`rcm ${args.join(" ")}: status ${r.status}\n${r.stderr}`);
}

const rcm = (...args: string[]): void => rcmHost(...args, "--device", o.device, "--threads", "2");

/** Hash of the tensors of a safetensors file by name, independent of their order and of metadata. */
function tensorsHash(path: string): string {
  const bytes = readFileSync(path);
  const header = Number(bytes.readBigUInt64LE(0));
  const { __metadata__: _, ...tensors } = JSON.parse(bytes.subarray(8, 8 + header).toString());
  const hash = createHash("sha256");
  for (const name of Object.keys(tensors).sort()) {
    const { dtype, shape, data_offsets: [from, to] } = tensors[name];
    hash.update(JSON.stringify([name, dtype, shape])).update(bytes.subarray(8 + header + from, 8 + header + to));
  }
  return hash.digest("hex").slice(0, 24);
}

/** Trains a recipe and hashes its last checkpoint. */
function hashRun(name: string, recipe: string, sets: string[]): void {
  rcm("distill", recipe, "--out", name, ...sets.flatMap((s) => ["--set", s]));
  const folder = join(dir, name, "checkpoints");
  const [newest] = readdirSync(folder).sort().reverse();
  hashes[name] = tensorsHash(join(folder, newest));
}

/** Hashes every picture, latent and shard in a folder. */
function hashFiles(name: string): void {
  const walk = (path: string): string[] =>
    statSync(path).isDirectory() ? readdirSync(path).sort().flatMap((f) => walk(join(path, f))) : [path];
  const files = walk(join(dir, name)).filter((f) => /\.(png|pt|tar)$/.test(f));
  if (files.length === 0) throw new Error(`${name} left no files`);
  hashes[name] = sha(Buffer.from(files.map((f) => `${f.slice(dir.length)} ${sha(readFileSync(f))}`).join("\n")));
}

const steps = `train.steps=${o.steps}`;
const began = performance.now();
try {
  const small = [
    "model.dim=32", "model.layers=2", "model.ffn_dim=48", "model.heads=2", "train.batch=4", "train.accumulate=2",
    "train.sample_every=25", "data.shuffle_buffer=20", `data.path=${join(dir, "digits/train")}`, steps,
    "optimizer.warmup_steps=5", "model.checkpoint=block",
  ];
  rcmHost("data", "digits", "--out", "digits", "--limit", "96", "--test-limit", "16");
  hashRun("teacher", join(ROOT, "recipes/digits/teacher.yaml"), [...small, "optimizer.decay_steps=0"]);
  rcmHost("export", "teacher", "--out", "digits_teacher.safetensors", "--dtype", "f32");
  const students = [...small, `teacher.weights=${join(dir, "digits_teacher.safetensors")}`];
  for (const name of ["rcm", "scm", "dmd", "dcm", "meanflow"]) {
    const warmup = name === "rcm" ? ["objective.consistency.tangent_warmup=10"] : [];
    hashRun(name, join(ROOT, `recipes/digits/${name}.yaml`), [...students, ...warmup]);
    hashFiles(`${name}/samples`);
    for (const n of ["1", "2", "4"]) {
      rcm(
        "sample", join(dir, name, "recipe.yaml"), "--weights", name, "--prompt", "a handwritten zero", "--prompt",
        "a handwritten seven", "--each", "3", "--steps", n, "--out", `${name}_${n}`,
      );
      hashFiles(`${name}_${n}`);
    }
  }
  for (const sampler of ["euler", "unipc"]) {
    rcm(
      "sample", join(dir, "rcm/recipe.yaml"), "--teacher", "--prompt", "a handwritten seven", "--steps", "6", "--out",
      `digits_${sampler}`, "--set", `sample.teacher_sampler=${sampler}`,
    );
    hashFiles(`digits_${sampler}`);
  }

  mkdirSync(join(dir, "texts"));
  writeTinyTeacher(join(dir, "teacher.pth"), 5);
  const texts = writeTinyTexts(join(dir, "texts"), 4);
  writeTinyVae(join(dir, "vae.pth"));
  const text = writeText(dir, 4096);
  Object.assign(inputs, {
    WAN_TEACHER: join(dir, "teacher.pth"), WAN_DATA: join(dir, "wan_euler"), WAN_NEGATIVE_EMBED: texts.negative,
    WAN_TEXT_ENCODER: text.weights, WAN_TOKENIZER: text.tokenizer,
  });
  for (const sampler of ["euler", "unipc"]) {
    rcm(
      "data", "synth", "--weights", "teacher.pth", "--prompts", texts.prompts, "--embeds", texts.embeds,
      "--negative-embeds", texts.negative, "--shape", TINY_SHAPE.join(","), "--steps", "5", "--per-shard", "2",
      "--sampler", sampler, "--out", `wan_${sampler}`,
    );
    hashFiles(`wan_${sampler}`);
  }
  const video = [
    "--embeds", join(dir, "texts/000000001.embed.pt"), "--size", "32x48", "--frames", "9", "--vae", "vae.pth",
    "--format", "png", "--save-latents",
  ];
  for (const [name, more] of Object.entries({
    rf: ["--steps", "4"],
    trig: ["--steps", "2", "--form", "trig"],
    ode: ["--steps", "6", "--sampler", "ode"],
    guided: ["--teacher", "--steps", "4", "--negative-embeds", texts.negative],
    teacher_euler: ["--teacher", "--steps", "4", "--sampler", "euler", "--guidance", "1"],
    streamed: ["--steps", "2", "--offload"],
  })) {
    rcm("sample", "--weights", "teacher.pth", ...video, ...more, "--out", `video_${name}`);
    hashFiles(`video_${name}`);
  }
  for (const file of readdirSync(join(ROOT, "recipes/wan2.1")).filter((f) => f !== "base.yaml").sort()) {
    const is14b = file.includes("14b");
    const warmup = is14b || /-(scm|dcm|dmd)\./.test(file) ? [] : ["objective.consistency.tangent_warmup=10"];
    const frames = is14b ? [] : ["data.frames=2"];
    hashRun(file.replace(".yaml", ""), join(ROOT, "recipes/wan2.1", file), [
      ...TINY_SETS, ...warmup, ...frames, "train.accumulate=2", "train.keep_checkpoints=1", "train.sample_every=0",
      steps,
    ]);
  }
} finally {
  rmSync(dir, { recursive: true, force: true });
}

if (o.out) writeFileSync(o.out, `${JSON.stringify(hashes, null, 1)}\n`);
const before = o.against ? (JSON.parse(readFileSync(o.against, "utf8")) as Record<string, string>) : null;
const differ = before
  ? [...new Set([...Object.keys(before), ...Object.keys(hashes)])].filter((k) => before[k] !== hashes[k])
  : [];
for (const k of differ) console.log(`differs: ${k}: before ${before?.[k]}, now ${hashes[k]}`);
console.log(
  `${Object.keys(hashes).length} hashes in ${((performance.now() - began) / 1000).toFixed(0)} s` +
    (before ? `, ${differ.length} differ` : ""),
);
process.exit(differ.length === 0 ? 0 : 1);
