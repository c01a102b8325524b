import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { wanParams } from "../../../core/models/wan/params.ts";
import { wanSpec } from "../../harness/wan_net.ts";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { decodePng } from "../../../core/io/png_read.ts";
import { hostTensor, hostValues } from "../../../core/dtype.ts";
import { readTorchTensor } from "../../../core/io/torch.ts";
import { experts } from "../../../core/sample/i2v.ts";
import { residentNet, streamedNet, type SampleNet } from "../../../core/networks/net.ts";
import { StreamedWeights } from "../../../core/networks/streamed.ts";
import { runVideos, type SampleEvent, type VideoJob, type VideoSummary } from "../../../core/sample/videos.ts";
import { studentPlan, teacherPlan } from "../../../core/networks/plan.ts";
import { parseShard } from "../../../core/io/shard.ts";
import { workItems } from "../../../core/sample/work.ts";
import { findFfmpeg } from "../../../core/video/mp4.ts";
import { cpu } from "../../harness/device.ts";
import { fakeText, fakeVae, type Log } from "../../harness/fake_parts.ts";
import { randomize, TINY_WAN, tinyWan } from "../../harness/tiny_wan.ts";

const PROMPTS = ["a cat", "a dog", "a cow"];
const STUDENT = studentPlan({ steps: 2, sigmaMax: 80, midTimes: null, form: "rf", mode: "sde" });
let dir = "";
let log: Log = [];
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "rcm-video-"));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const job = (out: string, o: Partial<VideoJob> = {}): VideoJob => ({
  items: workItems(PROMPTS, 2),
  shard: { index: 0, count: 1 },
  out: join(dir, out),
  settings: { steps: 2, seed: 5 },
  overwrite: false,
  seed: 5,
  batch: 1,
  shape: [16, 2, 4, 6],
  scale: { rate: 16, strides: [4, 8, 8] },
  plan: STUDENT,
  negativePrompt: null,
  textShape: { width: TINY_WAN.textDim, length: TINY_WAN.textLen },
  texts: new Map(),
  picture: null,
  format: "png",
  saveLatents: true,
  offload: false,
  ...o,
});
const resident = (seed = 1, config = TINY_WAN): SampleNet => (
  log.push("open net"),
  residentNet(tinyWan(cpu(), config, "f32", seed))
);
const run = (
  j: VideoJob,
  net: () => SampleNet = resident,
  onEvent?: (e: SampleEvent) => void,
  stop?: () => boolean,
): Promise<VideoSummary> => {
  log = [];
  return runVideos(cpu(), { text: () => fakeText(log), net, vae: () => fakeVae(cpu(), log) }, j, {
    onEvent,
    shouldStop: stop,
  });
};
const latent = (out: string, i: number): Float64Array => hostValues(readTorchTensor(join(dir, out, `00000${i}.pt`)));

describe("videos of prompts", () => {
  test("every file, one manifest line each, parts opened in turn and freed before the next one opens", async () => {
    const before = cpu().memory().blocks;
    const s = await run(job("a"));
    expect(cpu().memory().blocks - before).toBeLessThanOrEqual(2); // rope tables stay
    expect(s).toMatchObject({ skipped: 0, width: 48, height: 32, frames: 5, steps: 2, evaluations: 2, warnings: [] });
    expect(s.files.length).toBe(6);
    expect(log.slice(0, 4)).toEqual(["open text", "encode a cat|a dog|a cow", "close text", "open net"]);
    expect(log.filter((l) => l === "open vae").length).toBe(1);
    const names = readdirSync(join(dir, "a")).sort();
    for (const f of ["000000", "000000.json", "000000.pt", "000000_sheet.png", "000005", "samples.jsonl", "sheet.png"])
      expect(names).toContain(f);
    expect(names.filter((n) => n.startsWith("."))).toEqual([]);
    expect(readdirSync(join(dir, "a/000003")).length).toBe(5);
    const lines = readFileSync(join(dir, "a/samples.jsonl"), "utf8")
      .trim()
      .split("\n")
      .map((l) => JSON.parse(l));
    expect(lines[0]).toEqual({ settings: { steps: 2, seed: 5 } });
    expect(lines.slice(1).map((l) => [l.index, l.prompt, l.file])).toEqual(
      PROMPTS.flatMap((p, i) => [
        [2 * i, p, `00000${2 * i}`],
        [2 * i + 1, p, `00000${2 * i + 1}`],
      ]),
    );
    expect(JSON.parse(readFileSync(join(dir, "a/000004.json"), "utf8"))).toMatchObject({
      prompt: "a cow",
      index: 4,
      seed: 5,
      steps: 2,
    });
    const sheet = decodePng(readFileSync(join(dir, "a/sheet.png")));
    const row = decodePng(readFileSync(join(dir, "a/000000_sheet.png")));
    expect([sheet.width, sheet.height]).toEqual([row.width, 6 * row.height]);
    expect(row.width).toBe(5 * 48 + 6 * 4);
  });

  test("times and peaks of every stage; frames a second from them", async () => {
    const steps: string[] = [];
    const s = await run(job("times"), resident, (e) => e.kind === "step" && steps.push(`${e.step}/${e.steps}`));
    expect(s.stages.map((r) => r.name)).toEqual([
      "load text encoder",
      "text",
      "load network",
      "diffusion",
      "write",
      "load VAE",
      "decode",
    ]);
    for (const r of s.stages) expect(r.seconds).toBeGreaterThan(0);
    const of = (name: string) => s.stages.find((r) => r.name === name)?.seconds as number;
    expect(s.fps).toBeCloseTo(30 / (of("diffusion") + of("decode")), 6);
    expect(s.fpsWithoutVae).toBeCloseTo(30 / of("diffusion"), 6);
    expect(s.stepSeconds.map((row) => row.length)).toEqual([2, 2, 2, 2, 2, 2]);
    expect(steps.length).toBe(12);
    expect(s.stages.reduce((n, r) => n + r.seconds, 0)).toBeLessThanOrEqual(s.seconds + 0.01);
    expect(s.peakBytes).toBeGreaterThan(0);
  });

  test("noise is a matter of seed and index: batches, shards and resuming give the same latents", async () => {
    await run(job("batched", { batch: 4 }));
    for (let i = 0; i < 3; i++) await run(job("sharded", { shard: parseShard(`${i}/3`), batch: 2 }));
    let seen = 0;
    const stopped = run(
      job("stopped"),
      resident,
      (e) => e.kind === "item" && seen++,
      () => seen >= 2,
    );
    await expect(stopped).rejects.toMatchObject({ code: "E_INTERRUPTED" });
    expect(readdirSync(join(dir, "stopped")).filter((f) => f.endsWith(".pt")).length).toBe(2);
    const rest = await run(job("stopped"));
    expect([rest.skipped, rest.files.length]).toEqual([2, 4]);
    for (let i = 0; i < 6; i++) {
      const want = latent("a", i);
      for (const out of ["batched", "sharded"]) {
        const got = latent(out, i);
        expect(Math.max(...got.map((v, k) => Math.abs(v - want[k])))).toBeLessThan(1e-5);
      }
      expect(latent("stopped", i)).toEqual(want);
    }
    expect(latent("a", 0)).not.toEqual(latent("a", 1));
    expect(
      readdirSync(join(dir, "sharded"))
        .filter((f) => f.endsWith(".jsonl"))
        .sort(),
    ).toEqual(["samples-0-of-3.jsonl", "samples-1-of-3.jsonl", "samples-2-of-3.jsonl"]);
    const whole = await run(job("sharded")); // finished by another number of shards
    expect([whole.skipped, whole.files.length, log]).toEqual([6, 0, []]);
  });

  test("another setting or prompt is an error that names it, and --overwrite draws anew", async () => {
    await expect(run(job("a", { settings: { steps: 4, seed: 5 } }))).rejects.toMatchObject({
      code: "E_STATE",
      message: expect.stringContaining("steps: there 2, here 4"),
    });
    await expect(run(job("a", { items: workItems(["a bat", "a dog", "a cow"], 2) }))).rejects.toMatchObject({
      code: "E_STATE",
      want: "a bat",
      got: "a cat",
    });
    const more = await run(job("a", { items: workItems([...PROMPTS, "a fox"], 2) }));
    expect([more.skipped, more.files.length]).toEqual([6, 2]);
    const again = await run(job("a", { overwrite: true, settings: { steps: 4, seed: 5 } }));
    expect([again.skipped, again.files.length]).toEqual([0, 6]);
    rmSync(join(dir, "a/000002"), { recursive: true });
    expect((await run(job("a", { settings: { steps: 4, seed: 5 } }))).files.length).toBe(1);
    writeFileSync(join(dir, "a/samples.jsonl"), "garbage\n");
    await expect(run(job("a"))).rejects.toMatchObject({ code: "E_FORMAT" });
  });

  test("streamed weights give the latents of resident ones, bitwise, and are released while decoding", async () => {
    await run(job("plain"));
    let weights: StreamedWeights | null = null;
    const streamed = (): SampleNet => {
      weights = new StreamedWeights(cpu(), wanParams(TINY_WAN), "f32", (part) => randomize(part));
      return streamedNet(wanSpec(TINY_WAN), weights, { dtype: "f32", residual: "f32", checkpoint: "none" });
    };
    const residentWhileDecoding: boolean[] = [];
    await run(
      job("streamed", { offload: true }),
      streamed,
      (e) => e.kind === "item" && residentWhileDecoding.push((weights as StreamedWeights).resident),
    );
    for (let i = 0; i < 6; i++) expect(latent("streamed", i)).toEqual(latent("plain", i));
    expect(residentWhileDecoding).toEqual([false, false, false, false, false, false]);
  });

  test("a guided teacher, Euler and UniPC, with a negative prompt", async () => {
    for (const sampler of ["euler", "unipc"] as const) {
      const plan = teacherPlan({ steps: 3, sampler, guidance: 4, shift: 5, sigmaMax: 5000 });
      const s = await run(job(sampler, { items: workItems(["a cat"], 1), plan, negativePrompt: "blurry" }));
      expect(s).toMatchObject({ steps: 3, evaluations: 6 });
      expect(log[1]).toBe("encode a cat|blurry");
      expect(latent(sampler, 0).every(Number.isFinite)).toBe(true);
    }
    expect(latent("euler", 0)).not.toEqual(latent("unipc", 0));
  });

  test("no text encoder and no VAE: embeddings from elsewhere, latents only", async () => {
    const texts = new Map([["a cat", hostTensor("f32", [2, 24], new Float64Array(48).fill(0.3))]]);
    const j = job("latents", { items: workItems(["a cat"], 2), texts });
    const s = await runVideos(cpu(), { text: null, net: resident, vae: null }, j);
    expect(s).toMatchObject({ fps: null, sheet: null });
    expect(readdirSync(join(dir, "latents")).sort()).toEqual([
      "000000.json",
      "000000.pt",
      "000001.json",
      "000001.pt",
      "samples.jsonl",
    ]);
    await expect(runVideos(cpu(), { text: null, net: resident, vae: null }, job("none"))).rejects.toMatchObject({
      code: "E_ARG",
    });
  });

  test("a still is one PNG", async () => {
    const s = await run(job("still", { items: workItems(["a cat"], 1), shape: [16, 1, 4, 6], format: "mp4" }));
    expect([s.frames, s.files.map((f) => f.slice(-10))]).toEqual([1, ["000000.png"]]);
    expect(decodePng(readFileSync(s.files[0]))).toMatchObject({ width: 48, height: 32 });
  });

  test("latents that are not finite stop the run and name the sample", async () => {
    const broken = (): SampleNet => {
      const model = tinyWan(cpu(), TINY_WAN, "f32");
      cpu().lib.fill({ out: model.params.tensor("head.head.bias").ptr, n: 4, value: Number.MAX_VALUE, dtype: 0 });
      return residentNet(model);
    };
    await expect(run(job("nan"), broken)).rejects.toMatchObject({
      code: "E_NONFINITE",
      message: expect.stringContaining("000000"),
    });
    expect(existsSync(join(dir, "nan/samples.jsonl"))).toBe(false);
  });

  test("ffmpeg that fails: one warning with its words, PNG frames instead", async () => {
    writeFileSync(join(dir, "ffmpeg"), "#!/bin/sh\necho 'no such codec' >&2\nexit 1\n", { mode: 0o755 });
    const before = process.env.RCM_FFMPEG;
    process.env.RCM_FFMPEG = join(dir, "ffmpeg");
    try {
      const s = await run(job("fallback", { format: "mp4" }));
      expect(s.warnings).toEqual([expect.stringContaining("no such codec")]);
      expect(readdirSync(join(dir, "fallback/000005")).length).toBe(5);
      process.env.RCM_FFMPEG = join(dir, "absent");
      expect((await run(job("absent", { format: "mp4" }))).warnings).toEqual([
        expect.stringContaining("ffmpeg is not there"),
      ]);
    } finally {
      if (before === undefined) delete process.env.RCM_FFMPEG;
      else process.env.RCM_FFMPEG = before;
    }
  });

  (findFfmpeg() ? test : test.skip)("mp4", async () => {
    const s = await run(job("mp4", { format: "mp4" }));
    expect(s.warnings).toEqual([]);
    expect(readFileSync(join(dir, "mp4/000005.mp4")).subarray(4, 8).toString()).toBe("ftyp");
    expect(s.files.every((f) => f.endsWith(".mp4"))).toBe(true);
  });
});

describe("a picture as first frame", () => {
  const I2V = { ...TINY_WAN, inDim: 36 };
  const picture = { width: 48, height: 32, pixels: Uint8Array.from({ length: 48 * 32 * 3 }, (_, i) => i % 251) };
  const streamed = (seed: number, events: number): [SampleNet, StreamedWeights] => {
    const weights = new StreamedWeights(cpu(), wanParams(I2V), "f32", (part) => randomize(part, seed), events);
    return [streamedNet(wanSpec(I2V), weights, { dtype: "f32", residual: "f32", checkpoint: "none" }), weights];
  };

  test("two experts change at the boundary; with streaming one at a time is on the device; same latents", async () => {
    const plan = studentPlan({ steps: 4, sigmaMax: 200, midTimes: null, form: "rf", mode: "ode" });
    const calls: string[] = [];
    const spy = (net: SampleNet, name: string): SampleNet => ({
      ...net,
      velocity: (tape, x, t, c) => (calls.push(`${name} ${t.t[0].toFixed(2)}`), net.velocity(tape, x, t, c)),
      release: net.release,
      [Symbol.dispose]: () => net[Symbol.dispose](),
    });
    const j = (out: string, offload: boolean) => job(out, { items: workItems(["a cat"], 2), plan, picture, offload });
    await run(j("i2v", false), () => experts(spy(resident(1, I2V), "high"), spy(resident(2, I2V), "low")));
    expect(calls.slice(0, 4)).toEqual(["high 1.00", "high 0.93", "low 0.85", "low 0.61"]);
    expect(log.slice(0, 5)).toEqual(["open text", "encode a cat", "close text", "open vae", "encode picture"]);
    const [high, a] = streamed(1, 0);
    const [low, b] = streamed(2, 4);
    const both: string[] = [];
    await run(
      j("i2v-offload", true),
      () => experts(high, low),
      (e) => e.kind === "step" && both.push(`${a.resident}/${b.resident}`),
    );
    expect(both).toEqual([...Array(2)].flatMap(() => ["true/false", "true/false", "false/true", "false/true"]));
    for (const i of [0, 1]) expect(latent("i2v-offload", i)).toEqual(latent("i2v", i));
    const other = { ...picture, pixels: picture.pixels.map((v) => 255 - v) };
    await run({ ...j("i2v-other", false), picture: other }, () => experts(resident(1, I2V), resident(2, I2V)));
    expect(latent("i2v-other", 0)).not.toEqual(latent("i2v", 0));
  });
});
