import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { dtypeBytes, numel, type DType } from "../dtype.ts";
import { AtomicFile } from "../io/out_file.ts";
import { streamSafetensors } from "../io/safetensors.ts";
import { WINDOW, type TensorStream } from "../io/tensor_stream.ts";
import { streamTorch } from "../io/torch.ts";
import { presetNet } from "../models/families.ts";
import { ParamSet } from "../nn/params.ts";
import type { Device } from "../tensor.ts";
import { loadNetwork } from "../weights/fit.ts";
import { openNetwork, specOf } from "../weights/resolve.ts";
import type { BenchRow } from "./time.ts";

export interface LoadBench {
  /** A checkpoint; null: a temporary one of this network, dtype and format is written. */
  path: string | null;
  preset: string;
  stored: DType;
  format: "pth" | "safetensors";
  /** Dtype of the parameters on the device. */
  dtype: DType;
  repeats: number;
}

/** Writes a file with the names and sizes of a whole network; every element is the same small number. */
function writeFull(path: string, o: LoadBench): void {
  const piece = new Uint8Array(new ArrayBuffer(WINDOW)).fill(0x3c);
  const { family, config } = presetNet(o.preset);
  const tensors = family.params(config).map(({ name, shape }): TensorStream => {
    const bytes = numel(shape) * dtypeBytes(o.stored);
    return {
      name,
      dtype: o.stored,
      shape,
      bytes,
      *chunks() {
        for (let at = 0; at < bytes; at += WINDOW) yield piece.subarray(0, Math.min(WINDOW, bytes - at));
      },
    };
  });
  using file = new AtomicFile(path);
  if (o.format === "pth") streamTorch(file, tensors);
  else streamSafetensors(file, tensors);
  file.commit();
}

/** Loads a checkpoint several times into its network: a row for each, with end-to-end rate and peak host memory. */
export function benchLoad(device: Device, o: LoadBench): BenchRow[] {
  const folder = o.path === null ? mkdtempSync(join(tmpdir(), "rcm-bench-load-")) : null;
  try {
    const path = folder === null ? (o.path as string) : join(folder, `${o.preset}.${o.format}`);
    if (folder !== null) writeFull(path, o);
    const { family, config } = specOf(openNetwork(path));
    const params = ParamSet.create(device, family.params(config), o.dtype, false);
    const onHost = device.backend.kind === "cpu" ? params.flat.bytes : 0;
    return Array.from({ length: o.repeats }, (_, i) => {
      let peak = 0;
      const began = performance.now();
      const report = loadNetwork(params, path, {
        onProgress: () => (peak = Math.max(peak, process.memoryUsage().rss)),
      });
      const ms = performance.now() - began;
      return {
        name: `load ${i + 1} (${report.format}, ${report.layout})`,
        shape: `${(report.bytes / 1e9).toFixed(2)} GB`,
        ms,
        gbs: report.bytes / 1e6 / ms,
        bytesPeak: Math.max(0, peak - onHost),
      };
    });
  } finally {
    if (folder !== null) rmSync(folder, { recursive: true, force: true });
  }
}
