import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { readWeights, resolveWeights, type WeightKind } from "../export/weights.ts";
import { WAN_PRESETS, type WanConfig } from "../models/wan/config.ts";
import type { ParamSet } from "../nn/params.ts";
import type { Checkpoint } from "../io/checkpoint.ts";

export function loadWan(params: ParamSet, path: string, o: { allowPartial?: boolean; kind?: WeightKind; onProgress?: (done: number, total: number) => void } = {}): { missing: string[] } {
  const w = readWeights(path, o.kind);
  const missing = params.names.filter((n) => !w.has(n));
  if (o.allowPartial) for (const n of missing) w.set(n, params.tensor(n).toHost());
  params.load(w, path);
  return { missing };
}
void existsSync, statSync, join, resolveWeights;
export function wanConfigOf(c: Checkpoint): WanConfig {
  const shape = (n: string): number[] => c.tensors.get(n)?.shape as number[];
  const dim = shape("patch_embedding.bias")[0];
  const layers = [...c.tensors.keys()].filter((k) => /^blocks\.\d+\.modulation$/.test(k)).length;
  return { ...WAN_PRESETS["wan2.1-1.3b"], dim, layers, heads: dim / 128, ffnDim: shape("blocks.0.ffn.0.bias")[0] };
}
import { openCheckpoint } from "../io/checkpoint.ts";
import type { ParamSpec } from "../nn/params.ts";
import { numel } from "../dtype.ts";
export function checkWan(specs: readonly ParamSpec[], path: string): { format: string; layout: string; tensors: number; bytes: number; missing: string[]; unexpected: string[]; misshaped: { name: string; want: readonly number[]; got: number[] }[] } {
  const c = openCheckpoint(resolveWeights(path));
  const known = new Set(specs.map((s) => s.name));
  return {
    format: c.format, layout: "original", tensors: c.tensors.size, bytes: c.bytes,
    missing: specs.filter((s) => !c.tensors.has(s.name)).map((s) => s.name), unexpected: [...c.tensors.keys()].filter((k) => !known.has(k)),
    misshaped: specs.flatMap((s) => { const t = c.tensors.get(s.name); return t && numel(t.shape) !== numel(s.shape) ? [{ name: s.name, want: s.shape, got: t.shape }] : []; }),
  };
}
