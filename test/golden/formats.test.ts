import { afterAll, beforeAll, describe, expect } from "bun:test";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hostTensor, hostValues } from "../../core/dtype.ts";
import { writeSafetensors } from "../../core/io/safetensors.ts";
import { writeTorch } from "../../core/io/torch.ts";
import { loadNetwork } from "../../core/weights/fit.ts";
import { onEachDevice } from "../harness/device.ts";
import { legacyFile, renamed, writeDcp, writeDiffusers, type Tensors } from "../harness/formats.ts";
import { both, build, config, original, outputError, published, under } from "../harness/golden_formats.ts";

/** The golden DiT through every import format. */

/** The same names with other values: a network that must not be chosen. */
const other: Tensors = new Map([...published].map(([k, t]) => [k, { ...t, data: new Uint8Array(t.data.length) }]));

interface Format {
  name: string;
  make: (path: string) => void;
  want: { format: string; layout: string; prefix: string };
  kind?: "ema" | "student";
}

const vae = new Map([["first_stage_model.w", hostTensor("f32", [1], [1])]]);
const buffer = new Map([["module.freqs", hostTensor("f64", [2], [1, 2])]]);
const wrapped = (key: string): string => `net.${key.replace(/^(blocks\.\d+)\./, "$1._checkpoint_wrapped_module.")}`;

const FORMATS: Format[] = [
  {
    name: "one safetensors file",
    make: (f) => writeSafetensors(`${f}.safetensors`, published),
    want: { format: "safetensors", layout: "original", prefix: "" },
  },
  {
    name: "safetensors with the prefix net.",
    make: (f) => writeSafetensors(`${f}.safetensors`, under("net.", published)),
    want: { format: "safetensors", layout: "original", prefix: "net." },
  },
  {
    name: "ComfyUI's single file that also holds another model",
    make: (f) => writeSafetensors(`${f}.safetensors`, both(under("model.diffusion_model.", published), vae)),
    want: { format: "safetensors", layout: "comfyui", prefix: "model.diffusion_model." },
  },
  {
    name: "a diffusers folder",
    make: (f) => {
      writeDiffusers(join(f, "transformer"), published, {
        num_attention_heads: config.heads,
        patch_size: config.patch,
      });
      writeFileSync(join(f, "model_index.json"), "{}");
    },
    want: { format: "safetensors", layout: "diffusers", prefix: "" },
  },
  {
    name: "torch zip",
    make: (f) => writeFileSync(`${f}.pth`, writeTorch(published)),
    want: { format: "torch", layout: "original", prefix: "" },
  },
  {
    name: "torch zip with the prefix module. and a buffer",
    make: (f) => writeFileSync(`${f}.pt`, writeTorch(both(under("module.", published), buffer))),
    want: { format: "torch", layout: "original", prefix: "module." },
  },
  {
    name: "torch zip with names of wrappers",
    make: (f) => writeFileSync(`${f}.pt`, writeTorch(renamed(published, wrapped))),
    want: { format: "torch", layout: "original", prefix: "net." },
  },
  {
    name: "legacy torch",
    make: (f) => writeFileSync(`${f}.pth`, legacyFile(published)),
    want: { format: "torch-legacy", layout: "original", prefix: "" },
  },
  {
    name: "legacy torch, matrices transposed in their storages",
    make: (f) => writeFileSync(`${f}.pth`, legacyFile(published, { transposed: true })),
    want: { format: "torch-legacy", layout: "original", prefix: "" },
  },
  {
    name: "legacy torch, one storage for all",
    make: (f) => writeFileSync(`${f}.pth`, legacyFile(published, { share: true })),
    want: { format: "torch-legacy", layout: "original", prefix: "" },
  },
  {
    name: "distributed checkpoint, rows over 3 ranks, EMA",
    make: (f) => writeDcp(f, both(under("net.", other), under("net_ema.", published)), { ranks: 3 }),
    want: { format: "dcp", layout: "original", prefix: "net_ema." },
  },
  {
    name: "distributed checkpoint, rows and columns, student",
    make: (f) => {
      const tensors = both(under("net.", published), under("net_ema.", other));
      writeDcp(join(f, "model"), tensors, { ranks: 2, grid: true });
    },
    want: { format: "dcp", layout: "original", prefix: "net." },
    kind: "student",
  },
];

let dir = "";
beforeAll(() => void (dir = mkdtempSync(join(tmpdir(), "rcm-formats-"))));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const at = (...names: string[]): string => join(dir, ...names);

onEachDevice((device, test) => {
  describe("the golden DiT through every import format", () => {
    for (const { name, make, want, kind } of FORMATS) {
      test(name, () => {
        const path = join(mkdtempSync(at("format-")), "net");
        make(path);
        const full = [path, `${path}.safetensors`, `${path}.pth`, `${path}.pt`].find((f) => existsSync(f)) as string;
        const { error, report } = outputError(device(), full, { kind });
        expect(error).toBeLessThan(2e-5);
        expect(report).toMatchObject({ ...want, loaded: original.size, missing: [], unexpected: [], misshaped: [] });
        expect(report.bytes).toBe([...original.values()].reduce((n, t) => n + t.data.length, 0));
      });
    }

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
      for (const name of wide.params.names) {
        const [from, to] = [wide.params.tensor(name).to("bf16"), small.params.tensor(name)];
        expect(Buffer.compare(from.toHost().data, to.toHost().data)).toBe(0);
      }
    });
  });
});
