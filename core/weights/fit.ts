import { isFloat, numel } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { isSharded, readStored, type CheckpointFormat, type Stored } from "../io/checkpoint.ts";
import type { WeightKind } from "../models/layout.ts";
import type { ParamSet } from "../nn/params.ts";
import { openNetwork, type FoundNetwork } from "./resolve.ts";

export interface LoadProgress {
  /** Bytes read so far and in all. */
  done: number;
  total: number;
  seconds: number;
}

export interface LoadOptions {
  /** Loads the tensors that fit and leaves the other parameters unchanged; the report lists both. */
  allowPartial?: boolean;
  /** Called with a description of what does not fit, when that is allowed. */
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

/** Differences between stored tensors and a set of parameters. */
export interface Fit {
  missing: string[];
  unexpected: string[];
  misshaped: Misfit[];
}

export interface LoadReport extends Fit {
  path: string;
  format: CheckpointFormat;
  layout: string;
  prefix: string;
  /** Number of tensors loaded, and their bytes in the file. */
  loaded: number;
  bytes: number;
  seconds: number;
}

/**
 * Whether a stored shape fits a parameter: equal up to axes of size 1, or with trailing axes flattened (Conv3d patch
 * embedding).
 */
export function fitsShape(stored: readonly number[], wanted: readonly number[]): boolean {
  const long = (shape: readonly number[]): string => shape.filter((d) => d !== 1).join();
  const flat = wanted.length === 2 && stored.length > 2 && stored[0] === wanted[0] && numel(stored) === numel(wanted);
  return flat || (numel(stored) === numel(wanted) && long(stored) === long(wanted));
}

/** Compares names, shapes and dtypes. */
export function fitOf(
  params: Pick<ParamSet, "specs">,
  tensors: ReadonlyMap<string, Stored>,
  optional: (name: string) => boolean = () => false,
): Fit {
  const known = new Set(params.specs.map((s) => s.name));
  const misshaped: Misfit[] = [];
  for (const { name, shape } of params.specs) {
    const t = tensors.get(name);
    if (t && (!fitsShape(t.shape, shape) || !(isFloat(t.dtype) || t.dtype === "f8_e4m3"))) {
      misshaped.push({ name, want: `[${shape}]`, got: `${t.dtype} [${t.shape}]` });
    }
  }
  return {
    missing: [...known].filter((n) => !tensors.has(n) && !optional(n)),
    unexpected: [...tensors.keys()].filter((n) => !known.has(n)),
    misshaped,
  };
}

/** One line naming what does not fit; empty when everything fits. */
export function describeFit({ missing, unexpected, misshaped }: Fit): string {
  const part = (what: string, names: string[]): string[] =>
    names.length === 0
      ? []
      : [`${names.length} ${what} (${names.slice(0, 5).join(", ")}${names.length > 5 ? ", .." : ""})`];
  return [
    ...part("missing", missing),
    ...part("unexpected", unexpected),
    ...part(
      "of another shape",
      misshaped.map((m) => `${m.name} want ${m.want} got ${m.got}`),
    ),
  ].join("; ");
}

/** Position in the files: loading in this order reads them sequentially. */
const placeOf = (t: Stored): [string, number] => {
  const first = isSharded(t) ? t.parts[0]?.stored : t;
  return [first?.file ?? "", first?.offset ?? 0];
};

/**
 * Streams stored tensors into parameters of any network: directly into device memory, where the dtype is converted.
 * Throws: E_FORMAT naming the keys that do not fit, unless partial loading is allowed; E_IO.
 */
export function loadParams(
  params: ParamSet,
  tensors: ReadonlyMap<string, Stored>,
  what: string,
  o: LoadOptions = {},
): Fit & { loaded: number; bytes: number; seconds: number } {
  const fit = fitOf(params, tensors, o.optional);
  const problem = describeFit(fit);
  const wrong = new Set(fit.misshaped.map((m) => m.name));
  const list = params.names.flatMap((name) => {
    const t = tensors.get(name);
    return t && !wrong.has(name) ? [{ name, t, place: placeOf(t) }] : [];
  });
  if (problem !== "" && (o.allowPartial !== true || list.length === 0)) {
    throw new RcmError("E_FORMAT", `${what} does not fit the network: ${problem}`, { op: "weights" });
  }
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
  params.device.sync();
  return { ...fit, loaded: list.length, bytes: total, seconds: seconds() };
}

/**
 * Loads a network that was found in a checkpoint into parameters of its family.
 * Throws: E_FORMAT (see `loadParams`).
 */
export function loadFound(
  params: ParamSet,
  { checkpoint, family, layout, prefix, tensors }: FoundNetwork,
  o: LoadOptions = {},
): LoadReport {
  const { path, format } = checkpoint;
  return {
    path,
    format,
    layout: layout.name,
    prefix,
    ...loadParams(params, tensors, path, { optional: family.optional, ...o }),
  };
}

/**
 * Loads a network from a checkpoint of any format and layout, or from a run folder.
 * Throws: E_IO, E_FORMAT (see `loadParams`).
 */
export const loadNetwork = (params: ParamSet, path: string, o: LoadOptions = {}): LoadReport =>
  loadFound(params, openNetwork(path, o.kind), o);
