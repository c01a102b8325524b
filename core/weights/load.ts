import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { isFloat, numel } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { isSharded, readStored, type Checkpoint, type CheckpointFormat, type Stored } from "../io/checkpoint.ts";
import { readJson } from "../io/source.ts";
import { WAN_PRESETS, type WanConfig } from "../models/wan/config.ts";
import type { WanLayout, WeightKind } from "../models/wan/layouts.ts";
import type { ParamSet } from "../nn/params.ts";
import { openWan, wanIn } from "./open.ts";

export interface LoadProgress {
  /** Bytes read so far and in all. */
  done: number;
  total: number;
  seconds: number;
}

export interface LoadOptions {
  /** Loads what fits and leaves the rest as it is; the report says what. */
  allowPartial?: boolean;
  /** Told what does not fit when that is allowed. */
  onPartial?: (text: string) => void;
  kind?: WeightKind;
  /** Parameters that a checkpoint may lack; they keep their values. */
  optional?: (name: string) => boolean;
  onProgress?: (p: LoadProgress) => void;
}

export interface Misfit {
  name: string;
  want: string;
  got: string;
}

/** How stored tensors fit a set of parameters. */
export interface Fit {
  missing: string[];
  unexpected: string[];
  misshaped: Misfit[];
}

export interface LoadReport extends Fit {
  path: string;
  format: CheckpointFormat;
  layout: WanLayout;
  prefix: string;
  /** Number of tensors loaded, and their bytes in the file. */
  loaded: number;
  bytes: number;
  seconds: number;
}

/** Whether a stored shape gives a parameter: the same but for axes of one, or with trailing axes flattened (Conv3d patch embedding). */
export function fitsShape(stored: readonly number[], wanted: readonly number[]): boolean {
  const long = (shape: readonly number[]): string => shape.filter((d) => d !== 1).join();
  const flat = wanted.length === 2 && stored.length > 2 && stored[0] === wanted[0] && numel(stored) === numel(wanted);
  return flat || (numel(stored) === numel(wanted) && long(stored) === long(wanted));
}

/** Compares names, shapes and dtypes. */
export function fitOf(params: Pick<ParamSet, "specs">, tensors: ReadonlyMap<string, Stored>, optional: (name: string) => boolean = () => false): Fit {
  const known = new Set(params.specs.map((s) => s.name));
  const misshaped: Misfit[] = [];
  for (const { name, shape } of params.specs) {
    const t = tensors.get(name);
    if (t && (!fitsShape(t.shape, shape) || !(isFloat(t.dtype) || t.dtype === "f8_e4m3"))) misshaped.push({ name, want: `[${shape}]`, got: `${t.dtype} [${t.shape}]` });
  }
  return {
    missing: [...known].filter((n) => !tensors.has(n) && !optional(n)),
    unexpected: [...tensors.keys()].filter((n) => !known.has(n)),
    misshaped,
  };
}

/** One line about what does not fit; empty when all does. */
export function describeFit({ missing, unexpected, misshaped }: Fit): string {
  const some = (what: string, names: string[]): string[] => (names.length === 0 ? [] : [`${names.length} ${what} (${names.slice(0, 5).join(", ")}${names.length > 5 ? ", .." : ""})`]);
  return [...some("missing", missing), ...some("unexpected", unexpected), ...some("of another shape", misshaped.map((m) => `${m.name} want ${m.want} got ${m.got}`))].join("; ");
}

/** Place in the files: reading in this order is reading forward. */
const placeOf = (t: Stored): [string, number] => {
  const first = isSharded(t) ? t.parts[0]?.stored : t;
  return [first?.file ?? "", first?.offset ?? 0];
};

/**
 * Streams stored tensors into parameters of any network: straight into device memory, dtype converted there. Throws: E_FORMAT
 * naming the keys that do not fit, unless partial loading is allowed; E_IO.
 */
export function loadParams(params: ParamSet, tensors: ReadonlyMap<string, Stored>, what: string, o: LoadOptions = {}): Fit & { loaded: number; bytes: number; seconds: number } {
  const fit = fitOf(params, tensors, o.optional);
  const problem = describeFit(fit);
  const wrong = new Set(fit.misshaped.map((m) => m.name));
  const list = params.names.flatMap((name) => {
    const t = tensors.get(name);
    return t && !wrong.has(name) ? [{ name, t, place: placeOf(t) }] : [];
  });
  if (problem !== "" && (o.allowPartial !== true || list.length === 0)) throw new RcmError("E_FORMAT", `${what} does not fit the network: ${problem}`, { op: "weights" });
  if (problem !== "") o.onPartial?.(`${what} fits only in part: ${problem}`);
  list.sort((a, b) => (a.place[0] === b.place[0] ? a.place[1] - b.place[1] : a.place[0] < b.place[0] ? -1 : 1));
  const total = list.reduce((n, { t }) => n + t.bytes, 0);
  const began = performance.now();
  const seconds = (): number => (performance.now() - began) / 1000;
  let done = 0;
  for (const { name, t } of list) {
    readStored(t, params.tensor(name));
    done += t.bytes;
    o.onProgress?.({ done, total, seconds: seconds() });
  }
  params.device.lib.sync();
  return { ...fit, loaded: list.length, bytes: total, seconds: seconds() };
}

/** Loads a Wan network from a checkpoint of any format and layout, or from a run folder. Throws: E_IO, E_FORMAT (see `loadParams`). */
export function loadWan(params: ParamSet, path: string, o: LoadOptions = {}): LoadReport {
  const { checkpoint, layout, prefix, tensors } = openWan(path, o.kind);
  return { path: checkpoint.path, format: checkpoint.format, layout, prefix, ...loadParams(params, tensors, checkpoint.path, o) };
}

/** Width of a head in every published Wan network. */
const HEAD_WIDTH = 128;
const PATCH = [1, 2, 2] as const;

/**
 * Configuration of the network in a checkpoint, from its shapes; what they do not say (heads, patch of a flattened embedding) comes
 * from a config.json beside it, else from the preset of these sizes, else a head is 128 wide. Throws: E_FORMAT naming the tensor that tells nothing.
 */
export function wanConfigOf(checkpoint: Checkpoint, kind: WeightKind = "ema"): WanConfig {
  const { tensors } = wanIn(checkpoint, kind);
  const bad = (name: string, got?: unknown): RcmError => new RcmError("E_FORMAT", `${checkpoint.path}: ${name} does not say how large the network is`, { op: "weights", got });
  const shape = (name: string, ...axes: number[]): number[] => {
    const found = tensors.get(name)?.shape;
    if (!found || !axes.includes(found.length) || found.some((d) => d < 1)) throw bad(name, found ?? "nothing");
    return found;
  };
  const [dim] = shape("blocks.0.self_attn.q.weight", 2);
  const [ffnDim] = shape("blocks.0.ffn.0.weight", 2);
  let layers = 0;
  while (tensors.has(`blocks.${layers}.self_attn.q.weight`)) layers++;
  const preset: WanConfig | undefined = Object.values(WAN_PRESETS).find((p) => p.dim === dim && p.layers === layers && p.ffnDim === ffnDim);
  const stated = { ...preset, ...configBeside(checkpoint.path) };
  const embed = shape("patch_embedding.weight", 2, 5);
  const patch: readonly [number, number, number] = embed.length === 5 ? [embed[2], embed[3], embed[4]] : (stated.patch ?? PATCH);
  const volume = patch[0] * patch[1] * patch[2];
  const [out] = shape("head.head.weight", 2);
  const inDim = numel(embed.slice(1)) / volume;
  const heads = stated.heads ?? dim / HEAD_WIDTH;
  if (!Number.isSafeInteger(inDim)) throw bad("patch_embedding.weight", embed);
  if (!Number.isSafeInteger(out / volume)) throw bad("head.head.weight", out);
  if (!Number.isSafeInteger(heads) || heads < 1 || dim % heads !== 0) throw bad("blocks.0.self_attn.q.weight", `width ${dim}, ${heads} heads`);
  return {
    dim, heads, layers, patch, inDim, ffnDim,
    outDim: out / volume,
    freqDim: shape("time_embedding.0.weight", 2)[1],
    textDim: shape("text_embedding.0.weight", 2)[1],
    textLen: stated.textLen ?? 512,
    eps: 1e-6,
    timeScale: 1000,
    secondTime: tensors.has("time_embedding_r.0.weight"),
  };
}

/** What a config.json of diffusers or Wan says that shapes cannot. A file that is no such config says nothing. */
function configBeside(path: string): { heads?: number; patch?: readonly [number, number, number]; textLen?: number } {
  const file = [join(path, "config.json"), join(dirname(path), "config.json")].find((f) => existsSync(f));
  if (!file) return {};
  const json = readJson(file);
  const c = (typeof json === "object" && json !== null ? json : {}) as Record<string, unknown>;
  const count = (v: unknown): number | undefined => (Number.isSafeInteger(v) && (v as number) > 0 ? (v as number) : undefined);
  const patch = Array.isArray(c.patch_size) && c.patch_size.length === 3 && c.patch_size.every(count) ? (c.patch_size as [number, number, number]) : undefined;
  const [heads, textLen] = [count(c.num_attention_heads) ?? count(c.num_heads), count(c.text_len)];
  return { ...(heads && { heads }), ...(patch && { patch }), ...(textLen && { textLen }) };
}
