import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openCheckpoint } from "../../core/io/checkpoint.ts";
import { hostTensor, hostValues, numel } from "../../core/dtype.ts";
import { TINY_WAN, tinyWeights, writeWeights } from "../harness/wan_files.ts";

const RCM = join(import.meta.dir, "../../cli/rcm");
let dir = "";
const rcm = (...args: string[]) => {
  const r = spawnSync("sh", [RCM, "export", ...args, "--device", "cpu"], {
    encoding: "utf8", cwd: dir, timeout: 300_000,
  });
  return { status: r.status, out: r.stdout, err: r.stderr };
};

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "rcm-cli-export-"));
  const config = { ...TINY_WAN, dim: 128, heads: 1, layers: 1, ffnDim: 160 };
  const base = tinyWeights(31, config);
  // sin(i K + j) is a matrix of rank two.
  const student = new Map(
    [...base].map(([name, t]) => [
      name,
      hostTensor(
        "f32",
        t.shape,
        hostValues(t).map((v, i) => v + 0.01 * Math.sin(i) * (t.shape.length === 2 ? 1 : 0)),
      ),
    ]),
  );
  writeWeights(join(dir, "base.safetensors"), base);
  writeWeights(join(dir, "student.safetensors"), student);
  writeWeights(join(dir, "i2v.safetensors"), tinyWeights(32, { ...config, inDim: 36 }));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

describe("rcm export", () => {
  test("--json is one document: format, files, bytes, tensors, seconds and error; --quiet says nothing else", () => {
    for (const [format, out] of [
      ["diffusers", "folder"], ["comfyui", "c.safetensors"], ["dcp", "dcp"], ["original", "o.pth"],
    ]) {
      const r = rcm(
        "student.safetensors", "--out", out, "--format", format, "--dtype", format === "comfyui" ? "f8_e4m3" : "bf16",
        "--json", "-q",
      );
      expect([r.status, r.err]).toEqual([0, ""]);
      const s = JSON.parse(r.out);
      expect(s).toMatchObject({ out, format, dtype: format === "comfyui" ? "f8_e4m3" : "bf16" });
      expect(s.files.every((f: { path: string; bytes: number }) => existsSync(join(dir, f.path)) && f.bytes > 0)).toBe(
        true,
      );
      expect(s.rounding.relative).toBeGreaterThan(0);
      expect(s.seconds).toBeGreaterThan(0);
      const opened = openCheckpoint(join(dir, out));
      expect(opened.tensors.size).toBe(s.tensors);
      expect(opened.bytes).toBe(s.bytes);
    }
  }, 300_000);

  test("an export is a source of the next one; a folder stays unless --force", () => {
    expect(rcm("folder", "--out", "again.safetensors", "-q").status).toBe(0);
    expect(rcm("dcp", "--out", "again.pth", "--prefix", "net.", "--patch", "linear", "-q").status).toBe(0);
    expect(
      [...openCheckpoint(join(dir, "again.pth")).tensors].every(([k, t]) => k.startsWith("net.") && t.shape.length < 5),
    ).toBe(true);
    const taken = rcm("student.safetensors", "--out", "folder", "--format", "diffusers");
    expect([taken.status, taken.err.includes("--force")]).toEqual([2, true]);
    expect(
      rcm("student.safetensors", "--out", "folder", "--format", "diffusers", "--shard-size", "0.0002", "--force", "-q")
        .status,
    ).toBe(0);
    expect(existsSync(join(dir, "folder/transformer/diffusion_pytorch_model.safetensors.index.json"))).toBe(true);
  }, 300_000);

  test("--lora prints rank and error of every layer; --merge what was kept", () => {
    const r = rcm("student.safetensors", "--lora", "base.safetensors", "--rank", "8", "--out", "lora.safetensors");
    expect(r.status).toBe(0);
    expect(r.out).toContain("blocks.0.self_attn.q.weight: rank 2, error ");
    expect(openCheckpoint(join(dir, "lora.safetensors")).metadata.rank).toBe("8");
    const m = rcm(
      "--merge", "i2v.safetensors", "--student", "student.safetensors", "--base", "base.safetensors", "--weight",
      "0.5", "--dtype", "f32", "--out", "merged.safetensors",
    );
    expect(m.status).toBe(0);
    expect(m.out).toContain("kept patch_embedding.weight: shapes [128,144], student [128,64], base [128,64]");
    expect(
      numel(openCheckpoint(join(dir, "merged.safetensors")).tensors.get("patch_embedding.weight")?.shape ?? []),
    ).toBe(128 * 144);
  }, 300_000);

  test("wrong usage: exit 2, a message that says what is allowed, nothing written", () => {
    const cases: [string[], string][] = [
      [["--out", "x.safetensors"], "WEIGHTS are missing"],
      [["student.safetensors", "--out", "x.onnx"], ".safetensors, .pth or .pt"],
      [["student.safetensors", "--out", "x.safetensors", "--format", "difusers"], 'did you mean "diffusers"'],
      [["student.safetensors", "--out", "x.safetensors", "--dtype", "f8"], "f8_e4m3"],
      [["student.safetensors", "--out", "x.safetensors", "--student", "base.safetensors"], "the same"],
      [["student.safetensors", "--out", "x.safetensors", "--merge", "base.safetensors"], "--base"],
      [["student.safetensors", "--out", "x.safetensors", "--lora", "base.safetensors", "--rank", "0"], "--rank"],
      [
        [
          "student.safetensors", "--out", "x.safetensors", "--lora", "base.safetensors", "--merge",
          "base.safetensors", "--base", "base.safetensors",
        ],
        "two exports",
      ],
      [["student.safetensors", "--out", "x.safetensors", "--rnk", "4"], 'did you mean "--rank"'],
    ];
    for (const [args, text] of cases) {
      const r = rcm(...args);
      expect([args, r.status, r.err.includes(text)]).toEqual([args, 2, true]);
    }
    expect([existsSync(join(dir, "x.safetensors")), existsSync(join(dir, "x.onnx"))]).toEqual([false, false]);
    const broken = rcm("base.safetensors", "--lora", "missing.safetensors", "--out", "x.safetensors", "--json");
    expect([broken.status, JSON.parse(broken.out).error.code]).toEqual([3, "E_IO"]);
  }, 300_000);

  test("help has every flag and an example of each kind", () => {
    const r = rcm("--help");
    for (const text of [
      "--format", "--lora", "--merge", "--weight", "--shard-size", "--force",
      "rcm export runs/rcm --out rcm-dcp --format dcp",
    ])
      expect([text, r.out.includes(text)]).toEqual([text, true]);
    expect(readFileSync(join(dir, "student.safetensors")).length).toBeGreaterThan(0);
  });
});
