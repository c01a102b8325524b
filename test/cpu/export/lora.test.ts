import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { keyOf } from "../../harness/wan_net.ts";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hostTensor, hostValues, numel, type HostTensor } from "../../../core/dtype.ts";
import { wan } from "../../../core/models/wan/family.ts";
import { kindOf } from "../../../core/export/lora_layout.ts";
import { exportWeights, type ExportOptions, type ExportSummary } from "../../../core/export/run.ts";
import { openCheckpoint, readHost } from "../../../core/io/checkpoint.ts";
import { Rng } from "../../../core/rng.ts";
import { TINY_WAN, tinyWeights, writeWeights } from "../../harness/wan_files.ts";

const CONFIG = { ...TINY_WAN, layers: 1, dim: 128, heads: 1, ffnDim: 160 };
/** Every matrix of the student differs from the base by a matrix of this rank. */
const RANK = 3;
/** A matrix that is left as it is, whose bias differs; and one that differs at full rank. */
const [STILL, FULL] = ["blocks.0.cross_attn.k.weight", "blocks.0.ffn.2.weight"];
const EQUAL = "text_embedding.2";

let dir = "";
const base = tinyWeights(11, CONFIG);
const student = new Map<string, HostTensor>();
const at = (name: string): string => join(dir, name);

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "rcm-lora-"));
  const rng = new Rng(4, 4);
  const normal = (n: number, size: number): Float64Array => Float64Array.from({ length: n }, () => size * rng.normal());
  for (const [name, t] of base) {
    const values = hostValues(t);
    const [N, K] = [t.shape[0], numel(t.shape) / t.shape[0]];
    if (name.startsWith(EQUAL)) student.set(name, t);
    else if (kindOf(wan, name) !== "matrix" || name === FULL)
      student.set(
        name,
        hostTensor(
          "f32", t.shape, values.map((v) => v + 0.01 * rng.normal()),
        ),
      );
    else if (name === STILL) student.set(name, t);
    else {
      const [u, v] = [normal(N * RANK, 0.1), normal(RANK * K, 0.1)];
      for (let i = 0; i < N; i++)
        for (let r = 0; r < RANK; r++) for (let j = 0; j < K; j++) values[i * K + j] += u[i * RANK + r] * v[r * K + j];
      student.set(name, hostTensor("f32", t.shape, values));
    }
  }
  writeWeights(at("base.safetensors"), base);
  writeWeights(at("student.safetensors"), student);
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const lora = (out: string, rank: number, o: Partial<ExportOptions> = {}): ExportSummary =>
  exportWeights({
    weights: at("student.safetensors"), kind: "ema", out: at(out), dtype: "f32", metadata: { note: "x" },
    lora: { base: at("base.safetensors"), rank }, device: { device: "cpu" }, ...o,
  });
const read = (name: string): Map<string, HostTensor> =>
  new Map([...openCheckpoint(at(name)).tensors].map(([n, t]) => [n, readHost(t)]));

/** up down, row-major. */
function product(up: HostTensor, down: HostTensor): Float64Array {
  const [N, R, K] = [up.shape[0], up.shape[1], down.shape[1]];
  const [u, d, out] = [hostValues(up), hostValues(down), new Float64Array(N * K)];
  for (let i = 0; i < N; i++)
    for (let r = 0; r < R; r++) for (let j = 0; j < K; j++) out[i * K + j] += u[i * R + r] * d[r * K + j];
  return out;
}
const differenceOf = (name: string): Float64Array => {
  const b = hostValues(base.get(name) as HostTensor);
  return hostValues(student.get(name) as HostTensor).map((v, i) => v - b[i]);
};
const norm = (v: Float64Array): number => Math.sqrt(v.reduce((s, x) => s + x * x, 0));
const apart = (a: Float64Array, b: Float64Array): number => norm(a.map((v, i) => v - b[i])) / norm(b);

/** Applies a file in ComfyUI's layout to the base as its loader does, by key alone. */
function applyComfy(file: Map<string, HostTensor>): Map<string, Float64Array> {
  const out = new Map<string, Float64Array>();
  const used = new Set<string>();
  const take = (key: string): HostTensor | undefined => {
    if (file.has(key)) used.add(key);
    return file.get(key);
  };
  for (const [name, t] of base) {
    const values = hostValues(t);
    const x = `diffusion_model.${name.replace(/\.(weight|bias)$/, "")}`;
    const add = (delta: Float64Array, scale = 1): void => delta.forEach((v, i) => void (values[i] += scale * v));
    if (name.endsWith(".bias")) {
      const d = take(`${x}.diff_b`);
      if (d) add(hostValues(d));
    } else {
      const [up, down, alpha, d] = [
        take(`${x}.lora_up.weight`), take(`${x}.lora_down.weight`), take(`${x}.alpha`), take(`${x}.diff`),
      ];
      if (up && down) add(product(up, down), alpha ? hostValues(alpha)[0] / down.shape[0] : 1);
      if (d) add(hostValues(d));
    }
    out.set(name, values);
  }
  expect([...file.keys()].filter((k) => !used.has(k))).toEqual([]);
  return out;
}

describe("LoRA", () => {
  test("ComfyUI layout: applied to the base by its keys gives the student, within reported errors", () => {
    const s = lora("comfy.safetensors", 8);
    const file = read("comfy.safetensors");
    const applied = applyComfy(file);
    for (const [name, t] of student) {
      const layer = s.lora?.layers.find((l) => l.name === name);
      const [got, want] = [applied.get(name) as Float64Array, hostValues(t)];
      if (name === FULL) {
        const b = hostValues(base.get(name) as HostTensor);
        expect(
          Math.abs(
            apart(
              got.map((v, i) => v - b[i]),
              differenceOf(name),
            ) /
              (layer?.error as number) -
              1,
          ),
        ).toBeLessThan(1e-4);
        expect(layer?.error).toBeGreaterThan(0.3);
      } else expect([name, apart(got, want) < 1e-6]).toEqual([name, true]);
      if (layer && name !== FULL && name !== STILL)
        expect([name, layer.rank, layer.error < 1e-5]).toEqual([name, RANK, true]);
      if (name === STILL) expect([layer?.rank, layer?.change]).toEqual([0, 0]);
    }
    expect(s.format).toBe("lora-comfyui");
    expect(s.lora?.dropped).toEqual([]);
    expect([...file.keys()].some((k) => k.includes(EQUAL))).toBe(false);
    expect(s.lora?.equal).toBe(2);
    // One rank for all; alpha is that rank, inside blocks; the patch embedding's difference has Conv3d's shape.
    for (const [key, t] of file) {
      if (key.endsWith("lora_down.weight")) expect([key, t.shape[0]]).toEqual([key, 8]);
      if (key.endsWith("lora_up.weight")) expect([key, t.shape[1]]).toEqual([key, 8]);
      if (key.endsWith(".alpha")) expect([key.includes(".blocks."), hostValues(t)[0]]).toEqual([true, 8]);
    }
    expect(file.get("diffusion_model.patch_embedding.diff")?.shape).toEqual([128, 16, 1, 2, 2]);
    expect(file.has("diffusion_model.blocks.0.modulation.diff")).toBe(true);
    expect(readdirSync(dir).filter((f) => f.endsWith(".tmp"))).toEqual([]);
  }, 60_000);

  test("metadata: rank and error of every layer", () => {
    const { metadata } = openCheckpoint(at("comfy.safetensors"));
    const layers = JSON.parse(metadata.lora_layers);
    expect([metadata.note, metadata.rank, Object.keys(layers).length]).toEqual([
      "x",
      "8",
      [...base.keys()].filter((n) => kindOf(wan, n) === "matrix").length - 1,
    ]);
    expect(layers["blocks.0.self_attn.q.weight"][0]).toBe(RANK);
    expect(layers[FULL][0]).toBe(8);
  });

  test("diffusers layout: lora_A, lora_B, a bias for every layer; norms and modulation are dropped and named", () => {
    const s = lora("diffusers.safetensors", 4, { format: "diffusers" });
    const file = read("diffusers.safetensors");
    for (const { name } of s.lora?.layers ?? []) {
      const key = `transformer.${keyOf("diffusers", "", name).replace(/\.weight$/, "")}`;
      const [a, b, bias] = ["lora_A.weight", "lora_B.weight", "lora_B.bias"].map((k) => file.get(`${key}.${k}`));
      if (!a || !b || !bias) throw new Error(`${key} lacks a part`);
      expect([key, a.shape[0], b.shape[1], bias.shape]).toEqual([key, 4, 4, [b.shape[0]]]);
      if (name !== FULL && name !== STILL)
        expect([name, apart(product(b, a), differenceOf(name)) < 1e-5]).toEqual([name, true]);
      expect([name, apart(hostValues(bias), differenceOf(name.replace(/weight$/, "bias"))) < 1e-6]).toEqual([
        name,
        true,
      ]);
    }
    expect(file.size).toBe(3 * (s.lora?.layers.length ?? 0));
    const dropped = s.lora?.dropped.map((d) => d.name) ?? [];
    expect(dropped).toContain("blocks.0.modulation");
    expect(dropped).toContain("blocks.0.norm3.weight");
    expect(dropped).toContain("patch_embedding.weight");
    expect(s.lora?.dropped.every((d) => (d.change ?? 0) > 0)).toBe(true);
  }, 60_000);

  test("a higher rank never errs more", () => {
    const errors = [2, 4, 16, 64].map((rank) => {
      const layer = lora(`r${rank}.safetensors`, rank).lora?.layers.find((l) => l.name === FULL);
      return layer?.error as number;
    });
    errors.slice(1).forEach((e, i) => expect(e).toBeLessThan(errors[i]));
  }, 120_000);

  test("bf16 factors err as f32 ones that are rounded, and are the same bits every time", () => {
    const name = "blocks.0.self_attn.q";
    const half = lora("half.safetensors", 8, { dtype: "bf16" });
    const error = half.lora?.layers.find((l) => l.name === `${name}.weight`)?.error;
    lora("whole.safetensors", 8);
    const [up, down] = ["up", "down"].map((part) => {
      const t = read("whole.safetensors").get(`diffusion_model.${name}.lora_${part}.weight`) as HostTensor;
      return hostTensor("bf16", t.shape, hostValues(t));
    });
    const rounded = apart(product(up, down), differenceOf(`${name}.weight`));
    expect(rounded).toBeGreaterThan(1e-4);
    expect(error).toBeLessThan(2 * rounded);
    expect(error).toBeGreaterThan(rounded / 2);
    lora("half2.safetensors", 8, { dtype: "bf16" });
    const again = read("half2.safetensors");
    for (const [key, t] of read("half.safetensors")) {
      expect([key, Buffer.compare(t.data, again.get(key)?.data as Uint8Array)]).toEqual([key, 0]);
    }
  }, 120_000);

  test("nothing to tell apart is an error", () => {
    expect(() => lora("none.safetensors", 4, { weights: at("base.safetensors") })).toThrow("no weight matrix differs");
    expect(readdirSync(dir).filter((f) => f.startsWith("none") || f.endsWith(".tmp"))).toEqual([]);
  });
});
