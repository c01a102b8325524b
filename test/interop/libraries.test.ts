import { afterAll, beforeAll, describe, expect, test as bunTest } from "bun:test";
import { keyOf } from "../harness/wan_net.ts";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hostTensor, hostValues, numel, type HostTensor } from "../../core/dtype.ts";
import type { ExportFormat } from "../../core/export/formats.ts";
import { wan } from "../../core/models/wan/family.ts";
import { kindOf } from "../../core/export/lora_layout.ts";
import { exportWeights, type ExportOptions } from "../../core/export/run.ts";
import { openCheckpoint, readHost } from "../../core/io/checkpoint.ts";
import { writeSafetensors } from "../../core/io/safetensors.ts";
import { Rng } from "../../core/rng.ts";
import { golden } from "../harness/golden.ts";
import { goldenConfig } from "../harness/golden_wan.ts";
import { TINY_WAN, tinyWeights, writeWeights } from "../harness/wan_files.ts";

/**
 * What export writes, opened by the libraries it is written for. They are looked for in the python of RCM_PYTHON, else
 * python3; what is not there is skipped with the reason. The scripts are handed over as text.
 */
const PYTHON = process.env.RCM_PYTHON || "python3";

const PRELUDE = `
import sys, json, os, glob, warnings
warnings.filterwarnings("ignore")
import torch
args = json.load(sys.stdin)
def digest(t):
    x = t.detach().to(torch.float64).flatten()
    w = torch.arange(x.numel(), dtype=torch.float64) % 97 + 1
    return [str(t.dtype).replace("torch.", ""), list(t.shape), x.sum().item(), (x * w).sum().item()]
def tell(sd):
    print(json.dumps({k: digest(v) for k, v in sd.items()}))
`;

function python<T>(script: string, input: unknown): T {
  const r = spawnSync(PYTHON, ["-c", PRELUDE + script], {
    input: JSON.stringify(input), encoding: "utf8", timeout: 300_000, maxBuffer: 1 << 28,
  });
  if (r.status !== 0) throw new Error(`python: ${r.stderr.split("\n").slice(-6).join("\n")}`);
  return JSON.parse(r.stdout.trim().split("\n").at(-1) as string) as T;
}

const versions = ((): Record<string, string> => {
  const probe = `
import json, importlib, importlib.util
names = [m for m in ["torch", "safetensors", "peft", "diffusers"] if importlib.util.find_spec(m)]
print(json.dumps({m: getattr(importlib.import_module(m), "__version__", "?") for m in names}))`;
  const r = spawnSync(PYTHON, ["-W", "ignore", "-c", probe], { encoding: "utf8", timeout: 120_000 });
  try {
    return JSON.parse(r.stdout.trim().split("\n").at(-1) as string) as Record<string, string>;
  } catch {
    return {};
  }
})();
console.log(
  Object.keys(versions).length > 0
    ? `interop: ${Object.entries(versions)
        .map(([m, v]) => `${m} ${v}`)
        .join(", ")}`
    : `skipped: interop: no torch in ${PYTHON} (RCM_PYTHON names another)`,
);

/** A test that runs where all of these libraries are. */
const needs = (libraries: string[], name: string, body: () => void): void => {
  const missing = libraries.filter((l) => !(l in versions));
  if (missing.length > 0) bunTest.skip(`${name} (no ${missing.join(", ")})`, body);
  else bunTest(name, body, 600_000);
};

type Digest = [dtype: string, shape: number[], sum: number, weighted: number];
const TORCH: Record<string, string> = {
  f32: "float32", bf16: "bfloat16", f16: "float16", f8_e4m3: "float8_e4m3fn", u8: "uint8",
};

function digestOf(t: HostTensor): Digest {
  let [sum, weighted] = [0, 0];
  hostValues(t).forEach((v, i) => {
    sum += v;
    weighted += v * ((i % 97) + 1);
  });
  return [TORCH[t.dtype], t.shape, sum, weighted];
}

/** Compares names, dtypes, shapes and both sums; values are exact in f64, sums but for their order. */
function expectSame(got: Record<string, Digest>, want: ReadonlyMap<string, HostTensor>, tolerance = 1e-9): void {
  expect(Object.keys(got).sort()).toEqual([...want.keys()].sort());
  for (const [name, t] of want) {
    const [dtype, shape, sum, weighted] = digestOf(t);
    expect([name, got[name][0], got[name][1]]).toEqual([name, dtype, shape]);
    const size = hostValues(t).reduce((s, v) => s + Math.abs(v), 0) + 1e-30;
    expect([
      name, Math.abs(got[name][2] - sum) / size < tolerance,
      Math.abs(got[name][3] - weighted) / (97 * size) < tolerance,
    ]).toEqual([name, true, true]);
  }
}

let dir = "";
const at = (name: string): string => join(dir, name);
const weights = tinyWeights(21);
const run = (o: Partial<ExportOptions> & { out: string }) =>
  exportWeights({
    weights: at("source.safetensors"), kind: "ema", dtype: "bf16", metadata: {}, device: { device: "cpu" }, ...o,
  });
const read = (path: string): Map<string, HostTensor> =>
  new Map([...openCheckpoint(path).tensors].map(([n, t]) => [n, readHost(t)]));

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "rcm-interop-"));
  writeWeights(at("source.safetensors"), weights);
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

describe("exports in the real libraries", () => {
  for (const dtype of ["f32", "bf16", "f16", "f8_e4m3"] as const) {
    const write = (format: ExportFormat, name: string): string => {
      run({ out: at(`${dtype}-${name}`), format, dtype, shardBytes: 1e6 });
      return at(`${dtype}-${name}`);
    };
    needs(
      ["torch", "safetensors"],
      `safetensors.torch.load_file: original, ComfyUI and diffusers shards, ${dtype}`,
      () => {
        const load = `
from safetensors.torch import load_file
sd = {}
for f in sorted(glob.glob(args["files"])): sd.update(load_file(f))
tell(sd)`;
        for (const [format, name, files] of [
          ["original", "o.safetensors", ""], ["comfyui", "c.safetensors", ""],
          ["diffusers", "d", "/transformer/*.safetensors"],
        ] as const) {
          const out = write(format, name);
          expectSame(python(load, { files: out + files }), read(out));
        }
      },
    );
    needs(["torch"], `torch.load(weights_only=True), plain and mapped, ${dtype}`, () => {
      const out = write("original", "o.pth");
      for (const mmap of [false, true])
        expectSame(
          python('tell(torch.load(args["file"], weights_only=True, mmap=args["mmap"]))', { file: out, mmap }),
          read(out),
        );
    });
    needs(["torch"], `torch.distributed.checkpoint: load and dcp_to_torch_save, ${dtype}`, () => {
      const out = write("dcp", "dcp");
      const load = `
import torch.distributed.checkpoint as dcp
meta = dcp.FileSystemReader(args["folder"]).read_metadata().state_dict_metadata
sd = {k: torch.zeros(v.size, dtype=v.properties.dtype) for k, v in meta.items()}
dcp.load(sd, storage_reader=dcp.FileSystemReader(args["folder"]), no_dist=True)
tell(sd)`;
      expectSame(python(load, { folder: out }), read(out));
      const convert = `
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
dcp_to_torch_save(args["folder"], args["file"])
tell(torch.load(args["file"], weights_only=True))`;
      expectSame(python(convert, { folder: out, file: at("converted.pth") }), read(out));
    });
  }

  needs(
    ["torch", "safetensors"],
    "f8: torch's own conversion gives the same codes, and weight * scale the weights to 1/16",
    () => {
      run({ out: at("f8.safetensors"), dtype: "f8_e4m3" });
      const script = `
from safetensors.torch import load_file
f8, exact = load_file(args["f8"]), load_file(args["source"])
out = {}
for k, v in f8.items():
    if v.dtype != torch.float8_e4m3fn: continue
    s = f8[k + "_scale"]
    same = torch.equal((exact[k] / s).to(torch.float8_e4m3fn).view(torch.uint8), v.view(torch.uint8))
    err = ((v.float() * s - exact[k]).abs() / exact[k].abs().clamp_min(s.item() * 2 ** -6)).max().item()
    out[k] = [same, err, s.item()]
print(json.dumps(out))`;
      const found = python<Record<string, [boolean, number, number]>>(script, {
        f8: at("f8.safetensors"),
        source: at("source.safetensors"),
      });
      expect(Object.keys(found).length).toBe(TINY_WAN.layers * 10);
      for (const [name, [same, error]] of Object.entries(found))
        expect([name, same, error <= 1 / 16]).toEqual([name, true, true]);
    },
  );

  needs(
    ["diffusers"],
    "diffusers: from_pretrained takes the folder without complaint, and its network gives the golden output",
    () => {
      const dit = golden("wan_dit.safetensors");
      writeSafetensors(at("golden.safetensors"), dit.under("params."), {
        wan_config: JSON.stringify(goldenConfig(dit.metadata.config)),
      });
      run({
        weights: at("golden.safetensors"), out: at("golden-diffusers"), format: "diffusers", dtype: "f32",
        shardBytes: 1e5,
      });
      writeSafetensors(
        at("golden-inputs.safetensors"),
        ["x", "t", "context", "y"].map((n): [string, HostTensor] => [n, dit.get(n)]),
      );
      const script = `
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file
model, info = WanTransformer3DModel.from_pretrained(args["folder"], torch_dtype=torch.float32, output_loading_info=True)
i = load_file(args["inputs"])
with torch.no_grad(): y = model(i["x"], i["t"].flatten(), i["context"], return_dict=False)[0]
error = ((y - i["y"]).norm() / i["y"].norm()).item()
print(json.dumps({"error": error, "info": {k: sorted(map(str, v)) for k, v in info.items()}}))`;
      const found = python<{ error: number; info: Record<string, string[]> }>(script, {
        folder: at("golden-diffusers/transformer"),
        inputs: at("golden-inputs.safetensors"),
      });
      expect([found.info.missing_keys, found.info.unexpected_keys, found.info.mismatched_keys]).toEqual([[], [], []]);
      expect(found.error).toBeLessThan(2e-5);
    },
  );
});

describe("LoRA in the real libraries", () => {
  const RANK = 4;
  /** Matrices differ by rank 2, biases freely, the rest not at all: what both layouts carry to the last digit. */
  const student = new Map<string, HostTensor>();
  beforeAll(() => {
    const rng = new Rng(8, 8);
    for (const [name, t] of weights) {
      const [values, kind] = [hostValues(t), kindOf(wan, name)];
      const [N, K] = [t.shape[0], numel(t.shape) / t.shape[0]];
      if (kind === "bias") values.forEach((_, i) => void (values[i] += 0.1 * rng.normal()));
      if (kind === "matrix") {
        const [u, v] = [N, K].map((n) => Float64Array.from({ length: 2 * n }, () => 0.2 * rng.normal()));
        for (let i = 0; i < N; i++)
          for (let j = 0; j < K; j++) values[i * K + j] += u[2 * i] * v[j] + u[2 * i + 1] * v[K + j];
      }
      student.set(name, hostTensor("f32", t.shape, values));
    }
    writeWeights(at("student.safetensors"), student);
  });

  const make = (format: "comfyui" | "diffusers"): string => {
    run({
      weights: at("student.safetensors"), out: at(`lora-${format}.safetensors`), format, dtype: "f32",
      lora: { base: at("source.safetensors"), rank: RANK },
    });
    return at(`lora-${format}.safetensors`);
  };
  /** Fuses a LoRA into diffusers' network of the base and tells how far each weight then is from the student's. */
  const fuse = (lora: string, convert: string): [string, number][] => {
    run({ out: at("base"), format: "diffusers", dtype: "f32", force: true });
    run({ weights: at("student.safetensors"), out: at("student"), format: "diffusers", dtype: "f32", force: true });
    const script = `
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file
model = WanTransformer3DModel.from_pretrained(args["base"], torch_dtype=torch.float32)
sd = load_file(args["lora"])
${convert}
model.load_lora_adapter(sd, prefix="transformer")
model.fuse_lora()
fused = {k.replace(".base_layer", ""): v for k, v in model.state_dict().items() if "lora_" not in k}
want = WanTransformer3DModel.from_pretrained(args["student"], torch_dtype=torch.float32).state_dict()
assert fused.keys() == want.keys()
print(json.dumps([[k, ((fused[k] - want[k]).norm() / want[k].norm()).item()] for k in want]))`;
    return python(script, { base: at("base/transformer"), student: at("student/transformer"), lora });
  };

  needs(["diffusers", "peft"], "diffusers: load_lora_adapter and fuse_lora on the base give the student", () => {
    const apart = fuse(make("diffusers"), "");
    expect(apart.length).toBe(weights.size);
    expect(apart.filter(([, e]) => !(e < 1e-6))).toEqual([]);
  });

  needs(["diffusers", "peft"], "the ComfyUI layout through diffusers' converter gives the student", () => {
    const apart = fuse(
      make("comfyui"),
      "from diffusers.loaders import lora_conversion_utils as conversion\n" +
        "sd = conversion._convert_non_diffusers_wan_lora_to_diffusers(sd)",
    );
    expect(apart.filter(([, e]) => !(e < 1e-6))).toEqual([]);
  });

  needs(
    ["peft", "safetensors"],
    "peft: injected into plain layers of these names, merged weights are the student's",
    () => {
      const layers = [...weights.keys()]
        .filter((n) => kindOf(wan, n) === "matrix")
        .map((n) => [n, keyOf("diffusers", "", n).replace(/\.weight$/, "")]);
      writeFileSync(at("layers.json"), JSON.stringify(layers));
      const script = `
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
from safetensors.torch import load_file
layers = json.load(open(args["layers"]))
base, student = load_file(args["base"]), load_file(args["student"])
root = torch.nn.Module()
for original, name in layers:
    *path, last = name.split(".")
    m = root
    for p in path:
        if not hasattr(m, p): m.add_module(p, torch.nn.Module())
        m = getattr(m, p)
    w = base[original]
    linear = torch.nn.Linear(w.shape[1], w.shape[0])
    linear.weight.data.copy_(w); linear.bias.data.copy_(base[original[:-6] + "bias"])
    m.add_module(last, linear)
sd = {k[len("transformer."):]: v for k, v in load_file(args["lora"]).items()}
rank = next(v.shape[0] for k, v in sd.items() if "lora_A" in k)
config = LoraConfig(r=rank, lora_alpha=rank, target_modules=[n for _, n in layers], lora_bias=True)
inject_adapter_in_model(config, root)
info = set_peft_model_state_dict(root, sd)
assert not info.unexpected_keys, info.unexpected_keys
out = []
for original, name in layers:
    layer = root.get_submodule(name)
    layer.merge()
    for part in ["weight", "bias"]:
        want = student[original[:-6] + part]
        out.append([original[:-6] + part, ((getattr(layer.base_layer, part) - want).norm() / want.norm()).item()])
print(json.dumps(out))`;
      const apart = python<[string, number][]>(script, {
        layers: at("layers.json"), base: at("source.safetensors"), student: at("student.safetensors"),
        lora: make("diffusers"),
      });
      expect(apart.length).toBe(2 * layers.length);
      expect(apart.filter(([, e]) => !(e < 1e-6))).toEqual([]);
    },
  );
});
