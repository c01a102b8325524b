import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hostTensor } from "../../core/dtype.ts";
import { readSafetensors, writeSafetensors } from "../../core/io/safetensors.ts";
import { writeDiffusers } from "../harness/formats.ts";

const ROOT = join(import.meta.dir, "../..");
const TEACHER = join(ROOT, "recipes/digits/teacher.safetensors");
const LONG = 300_000;
let dir = "";

const rcm = (...args: string[]) => {
  const r = spawnSync("sh", [join(ROOT, "cli/rcm"), ...args], { encoding: "utf8", cwd: dir, timeout: LONG });
  return { status: r.status, out: r.stdout, err: r.stderr };
};

beforeAll(() => void (dir = mkdtempSync(join(tmpdir(), "rcm-cli-weights-"))));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

describe("rcm weights inspect", () => {
  test("a published file, as JSON and as text", () => {
    const json = rcm("weights", "inspect", TEACHER, "--json");
    expect(json.status).toBe(0);
    expect(JSON.parse(json.out)).toMatchObject({
      format: "safetensors", layout: "original", preset: "wan-digits", tensors: 123, dtypes: { f32: 123 },
      problem: null, fit: { missing: [], unexpected: [], misshaped: [] },
    });
    const text = rcm("weights", "inspect", TEACHER);
    expect(text.out).toMatch(/wan-digits: width 128, 4 layers[\s\S]*every parameter is there/);
  }, LONG);

  test("a file that is missing or none: exit 3; wrong usage: exit 2", () => {
    writeFileSync(join(dir, "text.safetensors"), "hello, this is not a checkpoint");
    expect(rcm("weights", "inspect", "nowhere").status).toBe(3);
    const bad = rcm("weights", "inspect", "text.safetensors", "--json");
    expect(bad.status).toBe(3);
    expect(JSON.parse(bad.out).error).toMatchObject({
      code: "E_FORMAT",
      message: expect.stringContaining("text.safetensors"),
    });
    expect(rcm("weights", "inspect", TEACHER, "--kind", "critic").status).toBe(2);
    expect(rcm("weights").status).toBe(2);
  }, LONG);
});

describe("weights in recipes", () => {
  test(
    "a diffusers folder draws the same pictures; weights that do not fit are refused by name unless --allow-partial",
    () => {
      const { tensors } = readSafetensors(TEACHER);
      writeDiffusers(join(dir, "folder"), tensors, { num_attention_heads: 4, patch_size: [1, 4, 4], text_len: 24 });
      const lame = new Map(tensors);
      lame.delete("head.head.bias");
      lame.set("extra.weight", hostTensor("f32", [1], [1]));
      writeSafetensors(join(dir, "lame.safetensors"), lame);
      const sample = (weights: string, ...more: string[]) =>
        rcm(
          "sample", join(ROOT, "recipes/digits/teacher.yaml"), "--teacher", "--weights", weights, "--steps", "2",
          "--prompt", "a handwritten seven", "--out", "pics", "--device", "cpu", ...more,
        );
      const pictures = (weights: string): string => {
        const r = sample(weights, "--json");
        expect([r.status, r.err.includes("fits only in part")]).toEqual([0, false]);
        return Bun.hash(readFileSync(join(dir, JSON.parse(r.out).grid))).toString();
      };
      expect(pictures("folder")).toBe(pictures(TEACHER));
      const refused = sample("lame.safetensors");
      expect(refused.status).toBe(3);
      expect(refused.err).toMatch(/1 missing \(head\.head\.bias\); 1 unexpected \(extra\.weight\)/);
      const partial = sample("lame.safetensors", "--allow-partial");
      expect(partial.status).toBe(0);
      expect(partial.err).toMatch(/fits only in part: 1 missing \(head\.head\.bias\)/);
    },
    LONG,
  );
});
