import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fromF8Bits, hostTensor, hostValues, numel, toF8Bits, type HostTensor } from "../../../core/dtype.ts";
import { RcmError } from "../../../core/error.ts";
import { f8Scale, OUT_DTYPES } from "../../../core/export/convert.ts";
import { FORMATS, type ExportFormat } from "../../../core/export/formats.ts";
import { exportWeights, type ExportOptions, type ExportSummary } from "../../../core/export/run.ts";
import { openCheckpoint, readHost } from "../../../core/io/checkpoint.ts";
import { writeSafetensors } from "../../../core/io/safetensors.ts";
import { wanParams } from "../../../core/models/wan/params.ts";
import { ParamSet } from "../../../core/nn/params.ts";
import { loadNetwork } from "../../../core/weights/fit.ts";
import { cpu } from "../../harness/device.ts";
import { TINY_WAN, tinyWeights, writeWeights } from "../../harness/wan_files.ts";

let dir = "";
let source = "";
const weights = tinyWeights(1);
const at = (name: string): string => join(dir, name);
const run = (o: Partial<ExportOptions> & { out: string }): ExportSummary =>
  exportWeights({ weights: source, kind: "ema", dtype: "f32", metadata: {}, device: { device: "cpu" }, ...o });
const code = (work: () => unknown): string => {
  try {
    work();
  } catch (error) {
    return error instanceof RcmError ? `${error.code} ${error.message}` : String(error);
  }
  return "no error";
};
const read = (path: string): Map<string, HostTensor> =>
  new Map([...openCheckpoint(path).tensors].map(([n, t]) => [n, readHost(t)]));
const targets: [ExportFormat, string][] = [
  ["original", "o.safetensors"], ["original", "o.pth"], ["diffusers", "diff"], ["comfyui", "c.safetensors"],
  ["dcp", "dcp"],
];

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "rcm-export-"));
  source = writeWeights(at("source.safetensors"), weights);
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** Parameters of a network filled by the loader that training and sampling use. */
function loaded(path: string): Map<string, HostTensor> {
  const device = cpu();
  using _scope = device.scope();
  const params = ParamSet.create(device, wanParams(TINY_WAN), "f32", false);
  const report = loadNetwork(params, path);
  expect([report.missing, report.unexpected, report.misshaped]).toEqual([[], [], []]);
  return new Map(params.entries());
}

describe("export", () => {
  test("every format in f32 loads back bitwise through the loader, and from each other", () => {
    for (const [format, name] of targets) {
      const s = run({ out: at(name), format });
      expect([s.format, s.tensors, s.rounding?.relative]).toEqual([format, weights.size, 0]);
      expect(s.files.reduce((n, f) => n + f.bytes, 0)).toBeGreaterThan(s.bytes);
      const back = loaded(at(name));
      for (const [key, t] of weights)
        expect([key, Buffer.compare(back.get(key)?.data as Uint8Array, t.data)]).toEqual([key, 0]);
      run({ weights: at(name), out: at("again.safetensors"), patch: "linear" });
      const again = read(at("again.safetensors"));
      for (const [key, t] of weights)
        expect([key, again.get(key)?.shape, Buffer.compare(again.get(key)?.data as Uint8Array, t.data)]).toEqual([
          key, t.shape, 0,
        ]);
    }
    expect(new Set(targets.map(([f]) => f))).toEqual(new Set(FORMATS));
  });

  test("bf16 and f16 are the nearest values, and the summary says what that costs", () => {
    for (const dtype of ["bf16", "f16"] as const) {
      const s = run({ out: at(`half-${dtype}.safetensors`), dtype });
      let [errors, squares] = [0, 0];
      for (const [key, t] of read(at(`half-${dtype}.safetensors`))) {
        const [got, exact] = [hostValues(t), hostValues(weights.get(key) as HostTensor)];
        expect(Buffer.compare(t.data, hostTensor(dtype, t.shape, exact).data)).toBe(0);
        exact.forEach((v, i) => {
          errors += (v - got[i]) ** 2;
          squares += v * v;
        });
      }
      expect(Math.abs((s.rounding?.relative ?? 0) / Math.sqrt(errors / squares) - 1)).toBeLessThan(1e-6);
      expect(s.rounding?.worst?.relative).toBeGreaterThanOrEqual(s.rounding?.relative ?? 1);
    }
  });

  test("f8: large matrices with a scale each, everything else bf16; ComfyUI's notes; loads as scale * value", () => {
    const large = /^blocks\.\d+\.((self|cross)_attn\.[qkvo]|ffn\.[02])\.weight$/;
    const wanted = new Map([...weights].map(([key, t]) => {
      const exact = hostValues(t);
      const scale = f8Scale(exact.reduce((m, v) => Math.max(m, Math.abs(v)), 0));
      return [
        key,
        large.test(key)
          ? exact.map((v) => fromF8Bits(toF8Bits(v / scale)) * scale)
          : hostValues(hostTensor("bf16", t.shape, exact)),
      ];
    }));
    for (const [format, name] of targets) {
      const out = `f8-${name}`;
      const s = run({ out: at(out), format, dtype: "f8_e4m3" });
      const found = read(format === "diffusers" ? at(join(out, "transformer")) : at(out));
      const f8 = [...found].filter(([, t]) => t.dtype === "f8_e4m3");
      expect(f8.length).toBe(TINY_WAN.layers * 10);
      expect([...found].filter(([n]) => n.endsWith("comfy_quant")).length).toBe(format === "comfyui" ? f8.length : 0);
      for (const [key, t] of found) {
        if (key.endsWith(".weight_scale")) expect([t.dtype, t.shape]).toEqual(["f32", []]);
        else if (key.endsWith(".comfy_quant"))
          expect(JSON.parse(new TextDecoder().decode(t.data)).format).toBe("float8_e4m3fn");
        else if (t.dtype !== "f8_e4m3") expect([key, t.dtype]).toEqual([key, "bf16"]);
      }
      const back = loaded(at(out));
      for (const [key, want] of wanted)
        expect([
          key,
          Buffer.compare(Buffer.from(hostValues(back.get(key) as HostTensor).buffer), Buffer.from(want.buffer)),
        ]).toEqual([key, 0]);
      expect(s.rounding?.relative).toBeGreaterThan(0.005);
      expect(s.rounding?.worst?.relative).toBeLessThan(0.04);
      if (format !== "comfyui") continue;
      // A power of two: bf16 holds the product exactly.
      run({ weights: at(out), out: at("f8-as-bf16.safetensors"), dtype: "bf16" });
      run({ weights: at(out), out: at("f8-as-f32.safetensors"), dtype: "f32" });
      const [narrow, wide] = [read(at("f8-as-bf16.safetensors")), read(at("f8-as-f32.safetensors"))];
      for (const [key, t] of wide)
        expect([
          key,
          Buffer.compare(
            Buffer.from(hostValues(narrow.get(key) as HostTensor).buffer),
            Buffer.from(hostValues(t).buffer),
          ),
        ]).toEqual([key, 0]);
    }
  }, 60_000);

  test("f8 scale: the least power of two that reaches the largest value", () => {
    for (const [largest, scale] of [
      [0, 1], [448, 1], [448.1, 2], [447, 1], [224, 0.5], [224.01, 1], [1e-3, 2 ** -18], [3.4e38, 2 ** 120],
    ]) {
      expect([largest, f8Scale(largest)]).toEqual([largest, scale]);
    }
  });

  test("keys and shapes: diffusers' names and Conv3d, ComfyUI's prefix, net. for the public rCM code", () => {
    const conv = [TINY_WAN.dim, 16, 1, 2, 2];
    const expected: [string, string, number[]][] = [
      ["o.safetensors", "patch_embedding.weight", conv],
      ["diff/transformer", "patch_embedding.weight", conv],
      ["c.safetensors", "model.diffusion_model.patch_embedding.weight", conv],
      ["dcp", "net.patch_embedding.weight", [TINY_WAN.dim, 64]],
      ["diff/transformer", "blocks.1.attn2.to_out.0.weight", [TINY_WAN.dim, TINY_WAN.dim]],
      ["diff/transformer", "blocks.0.norm2.weight", [TINY_WAN.dim]],
      ["diff/transformer", "blocks.0.scale_shift_table", [1, 6, TINY_WAN.dim]],
      ["diff/transformer", "condition_embedder.time_embedder.linear_1.weight", [TINY_WAN.dim, TINY_WAN.freqDim]],
      ["o.pth", "head.modulation", [1, 2, TINY_WAN.dim]],
    ];
    for (const [file, key, shape] of expected)
      expect([file, key, openCheckpoint(at(file)).tensors.get(key)?.shape]).toEqual([file, key, shape]);
    run({ out: at("prefixed.pth"), prefix: "net.", patch: "linear" });
    expect([...openCheckpoint(at("prefixed.pth")).tensors.keys()].every((k) => k.startsWith("net."))).toBe(true);
  });

  test("diffusers folder: config and shards with an index; a folder that is there stays unless --force", () => {
    const s = run({ out: at("sharded"), format: "diffusers", shardBytes: 1e6 });
    const folder = at("sharded/transformer");
    const config = JSON.parse(readFileSync(join(folder, "config.json"), "utf8"));
    expect(config).toMatchObject({
      _class_name: "WanTransformer3DModel", num_attention_heads: 2, attention_head_dim: 128, num_layers: 2,
      ffn_dim: 320, in_channels: 16, out_channels: 16, freq_dim: 32, text_dim: 48, patch_size: [1, 2, 2],
    });
    const index = JSON.parse(readFileSync(join(folder, "diffusion_pytorch_model.safetensors.index.json"), "utf8"));
    expect(Object.keys(index.weight_map).length).toBe(weights.size);
    expect(index.metadata.total_size).toBe(s.bytes);
    const shards = readdirSync(folder).filter((f) => f.endsWith(".safetensors")).sort();
    expect(shards.length).toBeGreaterThan(3);
    expect(shards[0]).toMatch(/^diffusion_pytorch_model-00001-of-000\d\d\.safetensors$/);
    for (const f of shards) {
      const held = [...openCheckpoint(join(folder, f)).tensors.values()];
      expect(held.reduce((n, t) => n + t.bytes, 0) <= 1e6 || held.length === 1).toBe(true);
    }
    expect(code(() => run({ out: at("sharded"), format: "diffusers" }))).toContain("--force");
    expect(run({ out: at("sharded"), format: "diffusers", force: true }).files.length).toBe(2);
    expect(readdirSync(dir).filter((f) => f.endsWith(".tmp"))).toEqual([]);
  });

  test("what cannot be is refused before anything is written", () => {
    const cases: [Partial<ExportOptions> & { out: string }, string][] = [
      [{ out: at("x.onnx") }, "E_ARG"],
      [{ out: at("x.pth"), format: "comfyui" }, "E_ARG"],
      [{ out: at("x.safetensors"), format: "dcp" }, "E_ARG"],
      [{ out: at("x"), format: "original" }, "E_ARG"],
      [{ out: at("x.safetensors"), weights: at("nothing") }, "E_IO"],
      [{ out: at("x.safetensors"), lora: { base: source, rank: 4 }, dtype: "f8_e4m3" }, "E_ARG"],
      [{ out: at("x.pth"), lora: { base: source, rank: 4 } }, "E_ARG"],
      [{ out: at("x.safetensors"), lora: { base: source, rank: 4 }, format: "dcp" }, "E_ARG"],
      [
        {
          out: at("x.safetensors"), lora: { base: source, rank: 4 },
          merge: { target: source, base: source, weight: 1 },
        },
        "E_ARG",
      ],
    ];
    for (const [o, want] of cases) expect([o, code(() => run(o)).slice(0, want.length)]).toEqual([o, want]);
    for (const f of ["x.onnx", "x.pth", "x.safetensors", "x"]) expect(existsSync(at(f))).toBe(false);
  });

  test("values that are not finite, or not in f16, are named; the old file stays", () => {
    const broken = (name: string, value: number): string => {
      const all = new Map(weights);
      const t = all.get("blocks.1.ffn.2.weight") as HostTensor;
      const values = hostValues(t);
      values[77] = value;
      all.set("blocks.1.ffn.2.weight", hostTensor("f32", t.shape, values));
      return writeWeights(at(name), all);
    };
    const [nan, large] = [broken("nan.safetensors", Number.NaN), broken("large.safetensors", 1e6)];
    for (const dtype of OUT_DTYPES)
      expect(code(() => run({ weights: nan, out: at("bad.safetensors"), dtype }))).toMatch(
        /E_NONFINITE.*blocks\.1\.ffn\.2\.weight/,
      );
    expect(code(() => run({ weights: large, out: at("bad.safetensors"), dtype: "f16" }))).toMatch(
      /E_NONFINITE.*blocks\.1\.ffn\.2\.weight.*f16/,
    );
    expect(run({ weights: large, out: at("bad.safetensors"), dtype: "bf16" }).tensors).toBe(weights.size);
    const before = statSync(at("bad.safetensors")).size;
    expect(code(() => run({ weights: nan, out: at("bad.safetensors") }))).toContain("E_NONFINITE");
    expect(statSync(at("bad.safetensors")).size).toBe(before);
    expect(readdirSync(dir).filter((f) => f.endsWith(".tmp"))).toEqual([]);
  });
});

describe("merge", () => {
  const numbers = (seed: number, inDim = 16): Map<string, HostTensor> => tinyWeights(seed, { ...TINY_WAN, inDim });

  test("target + w (student - base), exactly; a wider patch embedding and extra tensors stay the target's", () => {
    const [target, student, base] = [numbers(5, 36), numbers(6), numbers(7)];
    target.set("img_emb.extra", hostTensor("f32", [3], [1, 2, 3]));
    student.set("blocks.0.only_here", hostTensor("f32", [1], [1]));
    for (const [name, w] of [["target", target], ["student", student], ["base", base]] as const)
      writeWeights(at(`${name}.safetensors`), w);
    // The student comes in another layout, with its patch embedding as Conv3d.
    const s = run({
      weights: at("student.safetensors"),
      out: at("merged.safetensors"),
      merge: { target: at("target.safetensors"), base: at("base.safetensors"), weight: 0.5 },
    });
    expect(s.merge?.merged).toBe(wanParams(TINY_WAN).length - 1);
    expect(s.merge?.kept.map((k) => k.name).sort()).toEqual(["img_emb.extra", "patch_embedding.weight"]);
    expect(s.merge?.unused).toEqual(["blocks.0.only_here"]);
    for (const [name, t] of read(at("merged.safetensors"))) {
      const [w, d, b] = [target, student, base].map((m) => hostValues(m.get(name) ?? hostTensor("f32", [0], [])));
      const merges = !["img_emb.extra", "patch_embedding.weight"].includes(name);
      // Multiples of 2^-13 below 4: f32 holds every step exactly.
      expect([name, [...hostValues(t)]]).toEqual([name, [...w].map((v, i) => (merges ? v + 0.5 * (d[i] - b[i]) : v))]);
    }
  });

  test("a student equal to its base changes nothing; formats and dtypes of the inputs may differ", () => {
    run({ weights: at("student.safetensors"), out: at("student-diff"), format: "diffusers", force: true });
    run({
      weights: at("student-diff"),
      out: at("same.safetensors"),
      merge: { target: at("target.safetensors"), base: at("student.safetensors"), weight: 4 },
    });
    const same = read(at("same.safetensors"));
    for (const [name, t] of read(at("target.safetensors")))
      expect([name, Buffer.compare(same.get(name)?.data as Uint8Array, t.data)]).toEqual([name, 0]);
  });

  test("nothing in common is an error", () => {
    const other = new Map(
      [...numbers(8)]
        .filter(([n]) => n === "blocks.0.self_attn.q.weight")
        .map(([n]) => [n, hostTensor("f32", [2, 2], [1, 2, 3, 4])] as const),
    );
    writeSafetensors(at("other.safetensors"), other);
    expect(
      code(() =>
        run({
          weights: at("other.safetensors"),
          out: at("none.safetensors"),
          merge: { target: at("target.safetensors"), base: at("base.safetensors"), weight: 1 },
        }),
      ),
    ).toContain("E_FORMAT");
    expect(numel([...other.values()][0].shape)).toBe(4);
  });
});
