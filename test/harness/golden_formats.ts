import { afterAll, beforeAll, describe, expect } from "bun:test";
import type { Network } from "../../core/networks/network.ts";
import { netTime, wanNetwork } from "./wan_net.ts";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hostTensor, hostValues } from "../../core/dtype.ts";
import { writeSafetensors } from "../../core/io/safetensors.ts";
import { writeTorch } from "../../core/io/torch.ts";
import { constant, Tape } from "../../core/tape.ts";
import type { Device } from "../../core/tensor.ts";
import { loadNetwork, type LoadOptions, type LoadReport } from "../../core/weights/fit.ts";
import type { TestFunction } from "./device.ts";
import { asPublished, legacyFile, renamed, writeDcp, writeDiffusers, type Tensors } from "./formats.ts";
import { golden, relativeError } from "./golden.ts";
import { goldenConfig } from "./golden_wan.ts";

const dit = golden("wan_dit.safetensors");
export const config = goldenConfig(dit.metadata.config);
export const original = dit.under("params.");
export const published = asPublished(original, config.patch);
/** The same names with other values: a network that is not meant. */
const other: Tensors = new Map([...published].map(([k, t]) => [k, { ...t, data: new Uint8Array(t.data.length) }]));
export const under = (prefix: string, tensors: Tensors): Tensors => renamed(tensors, (k) => prefix + k);
export const both = (a: Tensors, b: Tensors): Tensors => new Map([...a, ...b]);

export const build = (device: Device, dtype: "f32" | "bf16" = "f32"): Network => wanNetwork(device, config, { dtype, residual: "f32", checkpoint: "none", trainable: false });

/** Error of the golden output with the weights at a path. */
export function outputError(device: Device, path: string, o: LoadOptions = {}): { error: number; report: LoadReport } {
  using _scope = device.scope();
  const model = build(device);
  const report = loadNetwork(model.params, path, o);
  const up = (name: string) => constant(device.fromHost(dit.get(name)));
  const y = model.forward(new Tape(device, { record: false }), up("x"), [netTime(device, hostValues(dit.get("t")))], up("context"));
  return { error: relativeError(y.x.values(), hostValues(dit.get("y"))), report };
}

const FORMATS: [name: string, make: (path: string) => void, want: { format: string; layout: string; prefix: string }, kind?: "ema" | "student"][] = [
  ["one safetensors file", (f) => writeSafetensors(`${f}.safetensors`, published), { format: "safetensors", layout: "original", prefix: "" }],
  ["safetensors behind net.", (f) => writeSafetensors(`${f}.safetensors`, under("net.", published)), { format: "safetensors", layout: "original", prefix: "net." }],
  ["ComfyUI's single file with other models beside", (f) => writeSafetensors(`${f}.safetensors`, both(under("model.diffusion_model.", published), new Map([["first_stage_model.w", hostTensor("f32", [1], [1])]]))), { format: "safetensors", layout: "comfyui", prefix: "model.diffusion_model." }],
  ["a diffusers folder", (f) => { writeDiffusers(join(f, "transformer"), published, { num_attention_heads: config.heads, patch_size: config.patch }); writeFileSync(join(f, "model_index.json"), "{}"); }, { format: "safetensors", layout: "diffusers", prefix: "" }],
  ["torch zip", (f) => writeFileSync(`${f}.pth`, writeTorch(published)), { format: "torch", layout: "original", prefix: "" }],
  ["torch zip behind module., with a buffer", (f) => writeFileSync(`${f}.pt`, writeTorch(both(under("module.", published), new Map([["module.freqs", hostTensor("f64", [2], [1, 2])]])))), { format: "torch", layout: "original", prefix: "module." }],
  ["torch zip with names of wrappers", (f) => writeFileSync(`${f}.pt`, writeTorch(renamed(published, (k) => `net.${k.replace(/^(blocks\.\d+)\./, "$1._checkpoint_wrapped_module.")}`))), { format: "torch", layout: "original", prefix: "net." }],
  ["legacy torch", (f) => writeFileSync(`${f}.pth`, legacyFile(published)), { format: "torch-legacy", layout: "original", prefix: "" }],
  ["legacy torch, matrices transposed in their storages", (f) => writeFileSync(`${f}.pth`, legacyFile(published, { transposed: true })), { format: "torch-legacy", layout: "original", prefix: "" }],
  ["legacy torch, one storage for all", (f) => writeFileSync(`${f}.pth`, legacyFile(published, { share: true })), { format: "torch-legacy", layout: "original", prefix: "" }],
  ["distributed checkpoint, rows over 3 ranks, EMA", (f) => writeDcp(f, both(under("net.", other), under("net_ema.", published)), { ranks: 3 }), { format: "dcp", layout: "original", prefix: "net_ema." }],
  ["distributed checkpoint, rows and columns, student", (f) => writeDcp(join(f, "model"), both(under("net.", published), under("net_ema.", other)), { ranks: 2, grid: true }), { format: "dcp", layout: "original", prefix: "net." }, "student"],
];

/** The golden DiT through every import format, on a device. */
export function goldenFormats(device: () => Device, test: TestFunction): void {
  let dir = "";
  beforeAll(() => void (dir = mkdtempSync(join(tmpdir(), "rcm-formats-"))));
  afterAll(() => rmSync(dir, { recursive: true, force: true }));
  const at = (...names: string[]): string => join(dir, ...names);

  describe("the golden DiT through every import format", () => {
    FORMATS.forEach(([name, make, want, kind], i) => {
      test(name, () => {
        const path = at(`format${i}`);
        make(path);
        const full = [path, `${path}.safetensors`, `${path}.pth`, `${path}.pt`].find((f) => existsSync(f)) as string;
        const { error, report } = outputError(device(), full, { kind });
        expect(error).toBeLessThan(2e-5);
        expect(report).toMatchObject({ ...want, loaded: original.size, missing: [], unexpected: [], misshaped: [] });
        expect(report.bytes).toBe([...original.values()].reduce((n, t) => n + t.data.length, 0));
      });
    });

    test("bf16 files give f32 parameters and f32 files bf16 ones, rounded to nearest; progress reaches the end", () => {
      const narrow = new Map([...published].map(([k, t]) => [k, hostTensor("bf16", t.shape, hostValues(t))]));
      writeFileSync(at("narrow.pth"), writeTorch(narrow));
      writeSafetensors(at("wide.safetensors"), published);
      using _scope = device().scope();
      const [wide, small] = [build(device(), "f32"), build(device(), "bf16")];
      let last = { done: 0, total: -1 };
      loadNetwork(wide.params, at("narrow.pth"), { onProgress: (p) => (last = p) });
      expect(last.done).toBe(last.total);
      loadNetwork(small.params, at("wide.safetensors"));
      for (const name of wide.params.names) expect(Buffer.compare(wide.params.tensor(name).to("bf16").toHost().data, small.params.tensor(name).toHost().data)).toBe(0);
    });
  });
}
