import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hostTensor } from "../../core/dtype.ts";
import { writeSafetensors } from "../../core/io/safetensors.ts";
import { readTorchTensor, writeTorch } from "../../core/io/torch.ts";
import { encodePng } from "../../core/io/png.ts";
import { cpu } from "../harness/device.ts";
import { TINY_WAN, tinyWan } from "../harness/tiny_wan.ts";

const ROOT = join(import.meta.dir, "../..");
const RCM = join(ROOT, "cli/rcm");
let dir = "";
// Short text for speed; the width of a head is that of every published network, so that the shapes tell the rest.
const TINY = { ...TINY_WAN, dim: 128, heads: 1, layers: 2, ffnDim: 64, textDim: 24, textLen: 512 };
const BASE = ["sample", "--weights", "tiny.safetensors", "--embeds", "texts.pt", "--latents-only", "--size", "48x32", "--frames", "5", "-q"];

const rcm = (args: string[]) => {
  const r = spawnSync("sh", [RCM, ...args], { encoding: "utf8", cwd: dir, timeout: 120_000 });
  return { status: r.status, out: r.stdout, err: r.stderr };
};
const latent = (folder: string, i: number): string => Buffer.from(readTorchTensor(join(dir, folder, `00000${i}.pt`)).data).toString("base64");

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "rcm-cli-video-"));
  writeSafetensors(join(dir, "tiny.safetensors"), new Map(tinyWan(cpu(), TINY, "bf16").params.entries()));
  const i2v = { ...TINY, inDim: 36 };
  writeSafetensors(join(dir, "i2v.safetensors"), new Map(tinyWan(cpu(), i2v, "bf16").params.entries()));
  writeFileSync(join(dir, "texts.pt"), writeTorch(hostTensor("f32", [2, 3, 24], Float64Array.from({ length: 144 }, (_, i) => Math.sin(i)))));
  writeFileSync(join(dir, "negative.pt"), writeTorch(hostTensor("f32", [4, 24], Float64Array.from({ length: 96 }, (_, i) => Math.cos(i)))));
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
    for (const shard of ["0/2", "1/2"]) expect(rcm([...BASE, "--out", "c", "--steps", "2", "--each", "2", "--shard", shard]).status).toBe(0);
    for (let i = 0; i < 4; i++) expect([latent("b", i), latent("c", i)]).toEqual([latent("a", i), latent("a", i)]);
    expect(rcm([...BASE, "--out", "d", "--steps", "2", "--each", "2", "--seed", "1"]).status).toBe(0);
    expect(latent("d", 0)).not.toBe(latent("a", 0));
    expect(rcm([...BASE, "--out", "e", "--steps", "8", "--form", "trig", "--sampler", "ode"]).status).toBe(0);
  });

  test("a teacher with guidance and a negative embedding", () => {
    const r = rcm([...BASE, "--teacher", "--steps", "3", "--guidance", "4", "--negative-embeds", "negative.pt", "--sampler", "euler", "--out", "t", "--json"]);
    expect(JSON.parse(r.out)).toMatchObject({ steps: 3, evaluations: 6 });
  });

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
      [[...BASE, "--aspect", "16:9"], "--size stands alone"],
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
      [["sample", "--weights", "texts.pt", "--embeds", "texts.pt", "--latents-only"], "texts.pt"],
      [["sample", "--model", "wan2.1-1.3b", "--weights", "i2v.safetensors", "--embeds", "texts.pt", "--latents-only"], "text embedding"],
    ] as [string[], string][]) {
      const r = rcm([...args, "--size", "48x32", "--frames", "1", "--out", "bad"]);
      expect([args.join(" "), r.status, r.err.includes(words)]).toEqual([args.join(" "), 3, true]);
    }
  }, 300_000);

  test("SIGTERM: what is drawn stays, exit 75, the same command goes on", async () => {
    const args = [...BASE.filter((x) => x !== "-q"), "--out", "stopped", "--each", "10", "--steps", "4"];
    const child = spawn("sh", [RCM, ...args], { cwd: dir, stdio: ["ignore", "ignore", "pipe"] });
    const status = await new Promise((resolve) => {
      const timer = setInterval(() => existsSync(join(dir, "stopped/000003.json")) && child.kill("SIGTERM"), 10);
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
