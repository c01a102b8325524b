import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readTorchTensor } from "../../core/io/torch.ts";
import { decodePng } from "../../core/io/png_read.ts";
import { findFfmpeg } from "../../core/video/mp4.ts";
import { encodePng } from "../../core/io/png.ts";
import { FILE_WAN, writeEmbeds, writeText, writeVae, writeWan } from "../harness/tiny_files.ts";

const ROOT = join(import.meta.dir, "../..");
const RCM = join(ROOT, "cli/rcm");
let dir = "";
const BASE = [
  "sample",
  "--weights",
  "tiny.safetensors",
  "--embeds",
  "texts.pt",
  "--latents-only",
  "--size",
  "48x32",
  "--frames",
  "5",
  "-q",
];

const rcm = (args: string[]) => {
  const r = spawnSync("sh", [RCM, ...args], { encoding: "utf8", cwd: dir, timeout: 120_000 });
  return { status: r.status, out: r.stdout, err: r.stderr };
};
const latent = (folder: string, i: number): string =>
  Buffer.from(readTorchTensor(join(dir, folder, `00000${i}.pt`)).data).toString("base64");

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "rcm-cli-video-"));
  writeWan(join(dir, "tiny.safetensors"), FILE_WAN);
  writeWan(join(dir, "tiny.pth"), FILE_WAN);
  writeWan(join(dir, "i2v.safetensors"), { ...FILE_WAN, inDim: 36 });
  writeEmbeds(join(dir, "texts.pt"), 2, 3, FILE_WAN.textDim);
  writeEmbeds(join(dir, "negative.pt"), 1, 4, FILE_WAN.textDim);
  writeFileSync(join(dir, "picture.png"), encodePng(new Uint8Array(48 * 32 * 3).fill(90), 48, 32, 3));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

describe("rcm sample for Wan", () => {
  test("a student of files alone: JSON with sizes, times of stages, files", () => {
    const r = rcm([...BASE, "--out", "a", "--steps", "2", "--each", "2", "--json"]);
    expect([r.status, r.err]).toEqual([0, ""]);
    const s = JSON.parse(r.out);
    expect(s).toMatchObject({ width: 48, height: 32, frames: 5, steps: 2, evaluations: 2, skipped: 0, warnings: [] });
    expect(s.files).toEqual(["a/000000.pt", "a/000001.pt", "a/000002.pt", "a/000003.pt"]);
    expect(s.stages.map((x: { name: string }) => x.name)).toContain("diffusion");
    expect(readTorchTensor(join(dir, "a/000000.pt")).shape).toEqual([16, 2, 4, 6]);
    const again = JSON.parse(rcm([...BASE, "--out", "a", "--steps", "2", "--each", "2", "--json"]).out);
    expect([again.skipped, again.files]).toEqual([4, []]);
    const other = rcm([...BASE, "--out", "a", "--steps", "1"]);
    expect([other.status, other.err.includes("--overwrite")]).toEqual([3, true]);
  });

  test("offload, batches and shards change nothing; the form changes little, the seed everything", () => {
    expect(rcm([...BASE, "--out", "b", "--steps", "2", "--each", "2", "--offload"]).status).toBe(0);
    for (const shard of ["0/2", "1/2"])
      expect(rcm([...BASE, "--out", "c", "--steps", "2", "--each", "2", "--shard", shard]).status).toBe(0);
    for (let i = 0; i < 4; i++) expect([latent("b", i), latent("c", i)]).toEqual([latent("a", i), latent("a", i)]);
    expect(rcm([...BASE, "--out", "d", "--steps", "2", "--each", "2", "--seed", "1"]).status).toBe(0);
    expect(latent("d", 0)).not.toBe(latent("a", 0));
    expect(rcm([...BASE, "--out", "e", "--steps", "8", "--form", "trig", "--sampler", "ode"]).status).toBe(0);
  });

  test("a teacher with guidance and a negative embedding", () => {
    const r = rcm([
      ...BASE,
      "--teacher",
      "--steps",
      "3",
      "--guidance",
      "4",
      "--negative-embeds",
      "negative.pt",
      "--sampler",
      "euler",
      "--out",
      "t",
      "--json",
    ]);
    expect(JSON.parse(r.out)).toMatchObject({ steps: 3, evaluations: 6 });
  });

  test("a MeanFlow network of a file is known by its second time", () => {
    writeWan(join(dir, "meanflow.safetensors"), { ...FILE_WAN, secondTime: true });
    const args = ["sample", "--weights", "meanflow.safetensors", ...BASE.slice(3)];
    const r = rcm([...args, "--steps", "2", "--out", "mf", "--json"]);
    expect([r.status, r.err]).toEqual([0, ""]);
    expect(JSON.parse(r.out)).toMatchObject({ steps: 2, evaluations: 2 });
    const { plan } = JSON.parse(readFileSync(join(dir, "mf/000000.json"), "utf8"));
    expect(plan).toMatchObject({ role: "student", form: "meanflow" });
    expect(rcm([...args, "--steps", "2", "--offload", "--out", "mf-offload"]).status).toBe(0);
    expect(latent("mf-offload", 0)).toBe(latent("mf", 0));
    const form = rcm([...args, "--form", "rf", "--out", "mf-rf"]);
    expect([form.status, form.err.includes("MeanFlow")]).toEqual([2, true]);
  }, 120_000);

  test("prompts through the text encoder, from a .pth with the public prefix; the cache needs no encoder", () => {
    const text = writeText(dir);
    const args = [
      "sample",
      "--weights",
      "tiny.pth",
      "--tokenizer",
      text.tokenizer,
      "--text-cache",
      "cache",
      "--latents-only",
      "--size",
      "48x32",
      "--frames",
      "1",
      "-q",
      "--json",
    ];
    writeFileSync(join(dir, "prompts.txt"), "a cat\n\na dog\n");
    const first = rcm([
      ...args,
      "--text-encoder",
      text.weights,
      "--prompts",
      "prompts.txt",
      "--prompt",
      "a fox",
      "--out",
      "p",
    ]);
    expect([first.status, first.err]).toEqual([0, ""]);
    expect(JSON.parse(first.out).files.length).toBe(3);
    const lines = readFileSync(join(dir, "p/samples.jsonl"), "utf8")
      .trim()
      .split("\n")
      .slice(1)
      .map((l) => JSON.parse(l).prompt);
    expect(lines).toEqual(["a fox", "a cat", "a dog"]);
    expect(new Set([0, 1, 2].map((i) => latent("p", i))).size).toBe(3);
    const again = rcm([
      ...args,
      "--text-encoder",
      text.weights,
      "--prompt",
      "a fox",
      "--prompt",
      "a cat",
      "--out",
      "q",
    ]);
    expect(JSON.parse(again.out).truncated).toEqual([]);
    expect(JSON.parse(again.out).stages.find((s: { name: string }) => s.name === "text").peakBytes).toBeLessThan(
      1 << 20,
    );
    for (const i of [0, 1]) expect(latent("q", i)).toBe(latent("p", i));
  }, 120_000);

  test("a recipe of a Wan network gives size, times and prompts", () => {
    const size = { ...FILE_WAN, textDim: 4096, freqDim: 256 };
    writeWan(join(dir, "recipe.safetensors"), size);
    writeEmbeds(join(dir, "wide.pt"), 1, 3, 4096);
    writeFileSync(
      join(dir, "wan.yaml"),
      `
name: tiny-wan
model: { preset: wan2.1-1.3b, dim: 128, heads: 1, layers: 2, ffn_dim: 64, dtype: bf16 }
teacher: { weights: recipe.safetensors, guidance: 3, negative_embed: wide_negative.pt }
data: { path: none, shape: [16, 2, 4, 6] }
objective: { consistency: { kind: scm } }
optimizer: { lr: 1.0e-4 }
train: { steps: 1, batch: 1, sample_every: 0 }
sample: { steps: [1, 3], sigma_max: 100, mid_times: [1.2, 0.7], teacher_steps: 2, prompts: [a recipe's prompt] }
`,
    );
    const args = ["sample", "wan.yaml", "--embeds", "wide.pt", "--latents-only", "-q", "--json"];
    const s = JSON.parse(rcm([...args, "--weights", "recipe.safetensors", "--steps", "3", "--out", "r"]).out);
    expect(s).toMatchObject({ width: 48, height: 32, frames: 5, steps: 3 });
    const made = JSON.parse(readFileSync(join(dir, "r/000000.json"), "utf8"));
    expect(made.prompt).toBe("a recipe's prompt");
    expect(made.plan.times).toEqual([Number(Math.atan(100).toPrecision(12)), 1.2, 0.7, 0]);
    writeEmbeds(join(dir, "wide_negative.pt"), 1, 2, 4096);
    const t = JSON.parse(rcm([...args, "--teacher", "--out", "rt"]).out);
    expect(t).toMatchObject({ steps: 2, evaluations: 4 });
  }, 120_000);

  test("from files to an mp4: umT5, network, VAE; the video decodes to its frames", () => {
    const text = writeText(dir);
    writeVae(join(dir, "vae.pth"));
    const args = [
      "sample",
      "--weights",
      "tiny.pth",
      "--text-encoder",
      text.weights,
      "--tokenizer",
      text.tokenizer,
      "--vae",
      "vae.pth",
      "--prompt",
      "a cat",
      "--size",
      "64x48",
      "--frames",
      "9",
      "--steps",
      "2",
      "--save-latents",
      "-q",
      "--json",
    ];
    const r = rcm([...args, "--out", "video"]);
    expect([r.status, r.err.includes("rror")]).toEqual([0, false]);
    const s = JSON.parse(r.out);
    expect(s.stages.map((x: { name: string }) => x.name)).toEqual([
      "load text encoder",
      "text",
      "load network",
      "diffusion",
      "write",
      "load VAE",
      "decode",
    ]);
    expect(s.fps).toBeGreaterThan(0);
    expect(existsSync(join(dir, "video/000000_sheet.png"))).toBe(true);
    const streamed = rcm([...args, "--offload", "--format", "png", "--out", "video-offload"]);
    expect(streamed.status).toBe(0);
    expect(latent("video-offload", 0)).toBe(latent("video", 0));
    expect(readdirSync(join(dir, "video-offload/000000")).length).toBe(9);
    const ffmpeg = findFfmpeg();
    if (ffmpeg === null) return console.warn("skipped: mp4: ffmpeg is not installed; frames were written as PNGs");
    expect(s.files).toEqual(["video/000000.mp4"]);
    const raw = spawnSync(
      ffmpeg,
      ["-loglevel", "error", "-i", join(dir, s.files[0]), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
      { maxBuffer: 1 << 26 },
    ).stdout;
    expect(raw.length).toBe(9 * 64 * 48 * 3);
    for (const i of [0, 8]) {
      // Brightness alone: colour is stored at half the resolution, and the frames of random weights are noise.
      const luma = (p: Uint8Array): number[] =>
        Array.from({ length: 64 * 48 }, (_, k) => 0.299 * p[3 * k] + 0.587 * p[3 * k + 1] + 0.114 * p[3 * k + 2]);
      const [want, got] = [
        luma(decodePng(readFileSync(join(dir, `video-offload/000000/frame_000${i}.png`))).pixels),
        luma(raw.subarray(i * 9216, (i + 1) * 9216)),
      ];
      const error = want.reduce((sum, v, k) => sum + Math.abs(v - got[k]), 0) / want.length;
      expect(error).toBeLessThan(5);
    }
  }, 120_000);

  test("Wan2.2 I2V: a picture, two experts, resident or one at a time", () => {
    writeVae(join(dir, "vae.safetensors"));
    // The published size is far too large for a test, so the network is named by its weights alone.
    const args = [
      "sample",
      "--image",
      "picture.png",
      "--weights-high",
      "i2v.safetensors",
      "--weights-low",
      "i2v_low.safetensors",
      "--embeds",
      "one.pt",
      "--vae",
      "vae.safetensors",
      "--frames",
      "5",
      "--save-latents",
      "--sampler",
      "ode",
      "--format",
      "png",
      "-q",
      "--json",
    ];
    writeWan(join(dir, "i2v_low.safetensors"), { ...FILE_WAN, inDim: 36 }, 2);
    writeEmbeds(join(dir, "one.pt"), 1, 3, FILE_WAN.textDim);
    const s = JSON.parse(rcm([...args, "--size", "64x64", "--adaptive-resolution", "--out", "i2v"]).out);
    expect(s).toMatchObject({ width: 80, height: 48, frames: 5, steps: 4 });
    expect(s.stages.map((x: { name: string }) => x.name)).toContain("encode picture");
    expect(JSON.parse(readFileSync(join(dir, "i2v/000000.json"), "utf8")).plan).toMatchObject({
      mode: "ode",
      times: [Number(Math.atan(200).toPrecision(12)), 1.5, 1.4, 1, 0],
    });
    expect(rcm([...args, "--size", "64x64", "--adaptive-resolution", "--offload", "--out", "i2v-offload"]).status).toBe(
      0,
    );
    expect(latent("i2v-offload", 0)).toBe(latent("i2v", 0));
    const still = rcm([
      "sample",
      "--weights",
      "i2v.safetensors",
      "--embeds",
      "one.pt",
      "--latents-only",
      "--frames",
      "1",
    ]);
    expect([still.status, still.err.includes("text alone")]).toEqual([2, true]);
  }, 120_000);

  test("what does not go together: exit 2 and why", () => {
    const cases: [string[], string][] = [
      [["sample"], "--vae decodes"],
      [["sample", "--latents-only"], "--weights names"],
      [["sample", "--weights", "tiny.safetensors", "--latents-only"], "no prompt"],
      [[...BASE, "--steps", "9"], "at most 8"],
      [[...BASE, "--guidance", "3"], "--teacher"],
      [[...BASE, "--teacher", "--form", "rf"], "students"],
      [[...BASE, "--frames", "6"], "4n + 1"],
      [[...BASE, "--size", "50x32"], "multiples of 16"],
      [[...BASE, "--aspect", "16:9"], "--size excludes"],
      [[...BASE, "--mid-times", "1,1.4", "--steps", "3"], "descend"],
      [[...BASE, "--shard", "2/2"], "--shard"],
      [[...BASE, "--model", "wan2.1-2b"], "wan2.1-1.3b"],
      [[...BASE, "--model", "wan2.2-i2v-a14b"], "--image"],
      [[...BASE, "--image", "picture.png"], "--weights-high"],
      [[...BASE, "--resize", "lanczos"], "--image"],
      [[...BASE, "--text-encoder", "x"], "--tokenizer"],
      [[...BASE, "--prompt", "one"], "another number of texts"],
      [["sample", join(ROOT, "recipes/digits/scm.yaml"), "--weights", "x", "--vae", "x"], "--vae: for Wan networks"],
    ];
    for (const [args, words] of cases) {
      const r = rcm([...args, "--out", "wrong"]);
      expect([args.join(" "), r.status, r.err.includes(words)]).toEqual([args.join(" "), 2, true]);
    }
    expect(existsSync(join(dir, "wrong"))).toBe(false);
  }, 300_000);

  test("files that are not there or do not fit: exit 3 and their names", () => {
    for (const [args, words] of [
      [["sample", "--weights", "absent.pth", "--embeds", "texts.pt", "--latents-only"], "absent.pth"],
      [["sample", "--weights", "tiny.safetensors", "--embeds", "absent.pt", "--latents-only"], "absent.pt"],
      [
        [
          "sample",
          "--weights",
          "tiny.safetensors",
          "--prompts",
          "absent.txt",
          "--embeds",
          "texts.pt",
          "--latents-only",
        ],
        "absent.txt",
      ],
      [["sample", "--weights", "texts.pt", "--embeds", "texts.pt", "--latents-only"], "texts.pt"],
      [
        ["sample", "--model", "wan2.1-1.3b", "--weights", "i2v.safetensors", "--embeds", "texts.pt", "--latents-only"],
        "text embedding",
      ],
    ] as [string[], string][]) {
      const r = rcm([...args, "--size", "48x32", "--frames", "1", "--out", "bad"]);
      expect([args.join(" "), r.status, r.err.includes(words)]).toEqual([args.join(" "), 3, true]);
    }
  }, 300_000);

  test("SIGTERM: what is drawn stays, exit 75, the same command goes on", async () => {
    const args = [...BASE.filter((x) => x !== "-q"), "--out", "stopped", "--each", "10", "--steps", "4"];
    const child = spawn("sh", [RCM, ...args], { cwd: dir, stdio: ["ignore", "ignore", "pipe"] });
    const status = await new Promise((resolve) => {
      const timer = setInterval(() => {
        if (!existsSync(join(dir, "stopped/000003.json"))) return;
        clearInterval(timer);
        child.kill("SIGTERM"); // once: a second one after the handlers are gone would end it with no status
      }, 10);
      child.on("exit", (code) => (clearInterval(timer), resolve(code)));
    });
    expect(status).toBe(75);
    const drawn = readdirSync(join(dir, "stopped")).filter((f) => f.endsWith(".pt")).length;
    expect(drawn).toBeWithin(4, 20);
    const rest = JSON.parse(rcm([...args, "--json", "-q"]).out);
    expect([rest.skipped, rest.files.length]).toEqual([drawn, 20 - drawn]);
    expect(readFileSync(join(dir, "stopped/samples.jsonl"), "utf8").trim().split("\n").length).toBe(21);
  }, 120_000);
});
