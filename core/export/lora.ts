import { hostTensor, numel, type DType } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { openCheckpoint, readStored } from "../io/checkpoint.ts";
import { AtomicFile } from "../io/out_file.ts";
import { Spool } from "../io/spool.ts";
import { streamSafetensors } from "../io/safetensors.ts";
import type { TensorStream } from "../io/tensor_stream.ts";
import { sampleReduce, type Device, type Tensor } from "../tensor.ts";
import { deviceChunks, digested, relativeNorm, squaresOf, type OutTensor } from "./convert.ts";
import { differenceKey, factorKeys, kindOf as loraKind, type LoraKind, type LoraLayout } from "./lora_layout.ts";
import type { SourceTensor, ExportSource } from "./source.ts";
import { times } from "../ops/nondiff/matmul.ts";
import { lowRank } from "./svd.ts";
import { verifyWritten } from "./verify.ts";

export interface LoraOptions {
  out: string;
  rank: number;
  layout: LoraLayout;
  dtype: "bf16" | "f16" | "f32";
  metadata: Record<string, string>;
  onLayer?: (done: number, total: number, name: string) => void;
}

export interface LoraLayer {
  name: string;
  /**
   * Singular values above 1e-5 of the largest (smaller ones are rounding of f32 weights), at most the requested rank.
   */
  rank: number;
  /** ||D - up down|| / ||D|| of the difference D, with the factors as they are stored. */
  error: number;
  /** ||D|| / ||W_base||. */
  change: number;
}

export interface LoraReport {
  rank: number;
  layers: LoraLayer[];
  /** Differences stored without factorization. */
  differences: number;
  /** Parameters without any difference. */
  equal: number;
  /** Differences with no place in the layout or no counterpart in the base, and how large they are. */
  dropped: { name: string; why: string; change: number | null }[];
  /** Relative error of all weight matrices together. */
  error: number;
  parameters: number;
  tensors: number;
}

/** Errors of a layer to be verified against the written file. */
interface Factors {
  name: string;
  down: string;
  up: string;
  squares: number;
  errors: number;
}

/**
 * Writes the difference of a student to its base as a LoRA: every weight matrix by its truncated SVD, biases and the
 * rest as plain differences where the layout has keys for them. All factors are padded with zeros to the same rank,
 * since loaders apply one scale to all. The file is read back: bytes are compared and each layer's error is recomputed.
 * Throws: E_FORMAT when nothing differs or agrees, E_NONFINITE, E_IO, E_INTERNAL.
 */
export function exportLora(device: Device, student: ExportSource, base: ExportSource, o: LoraOptions): LoraReport {
  if (base.family !== student.family) {
    throw new RcmError("E_FORMAT", "student and base are networks of different families", {
      op: "export",
      got: [student.family.title, base.family.title],
    });
  }
  using spool = new Spool(o.out);
  const { family } = student;
  const kindOf = (name: string): LoraKind => loraKind(family, name);
  const streams: TensorStream[] = [];
  const factors: Factors[] = [];
  const report: LoraReport = {
    rank: o.rank,
    layers: [],
    differences: 0,
    equal: 0,
    dropped: [],
    error: 0,
    parameters: 0,
    tensors: 0,
  };
  let done = 0;
  // Weight matrices first: whether a bias is kept depends on them. peft gives all layers of a file a bias, or none.
  const ordered = [...student.tensors].sort(
    ([a], [b]) => Number(kindOf(b) === "matrix") - Number(kindOf(a) === "matrix"),
  );
  const allBiases =
    o.layout === "diffusers" && ordered.some(([name, t]) => kindOf(name) === "bias" && biasDiffers(device, t, base));
  for (const [name, s] of ordered) {
    o.onLayer?.(done++, student.tensors.size, name);
    using _scope = device.scope();
    const b = base.tensors.get(name);
    if (!b || numel(b.shape) !== numel(s.shape)) {
      report.dropped.push({
        name,
        why: b ? `shapes [${s.shape}], base [${b.shape}]` : "not in the base",
        change: null,
      });
      continue;
    }
    const { difference, change } = differenceOf(device, name, s, b);
    const kind = kindOf(name);
    if (kind === "matrix") {
      // A loader applies a bias only with its layer's factors, so a bias alone gets zero factors.
      const bias = student.tensors.get(name.replace(/weight$/, "bias"));
      if (change === 0 && !(bias && biasDiffers(device, bias, base))) report.equal++;
      else {
        const keys = factorKeys(family, o.layout, name);
        const { down, up, sigma, squares, errors } = factorise(difference, o.rank, o.dtype);
        streams.push(
          spool.put(keys.down, o.dtype, down.shape, deviceChunks(down)),
          spool.put(keys.up, o.dtype, up.shape, deviceChunks(up)),
        );
        if (keys.alpha) streams.push(spool.put(keys.alpha, "f32", [], [hostTensor("f32", [], [o.rank]).data]));
        report.layers.push({ name, rank: sigma, error: relativeNorm(errors, squares), change });
        factors.push({ name, down: keys.down, up: keys.up, squares, errors });
      }
      continue;
    }
    const key = differenceKey(family, o.layout, name);
    if (change === 0 && !(kind === "bias" && allBiases && matrixDiffers(report, name))) report.equal++;
    else if (key === null) report.dropped.push({ name, why: `${o.layout} has no place for it`, change });
    else {
      const stored = expectFinite(name, difference.to(o.dtype));
      const known = s.shape.length >= b.shape.length ? s.shape : b.shape;
      const shape = family.storedShape(name, known, student.config ?? base.config, "conv3d");
      streams.push(spool.put(key, o.dtype, shape, deviceChunks(stored)));
      report.differences++;
    }
  }
  if (report.layers.length === 0)
    throw new RcmError("E_FORMAT", "no weight matrix differs from the base", {
      op: "export",
      got: `${report.equal} equal, ${report.dropped.length} without counterpart`,
    });
  report.error = relativeNorm(
    factors.reduce((n, f) => n + f.errors, 0),
    factors.reduce((n, f) => n + f.squares, 0),
  );
  const out = streams.map((s) => digested(s));
  write(o, out, report);
  verifyWritten(o.out, out);
  verifyFactors(o.out, factors, { device, student, base });
  report.tensors = out.length;
  report.parameters = out.reduce((n, t) => n + numel(t.shape), 0);
  return report;
}

function write(o: LoraOptions, out: OutTensor[], report: LoraReport): void {
  using file = new AtomicFile(o.out);
  streamSafetensors(file, out, {
    format: "pt",
    ...o.metadata,
    rank: String(o.rank),
    lora_error: report.error.toPrecision(4),
    lora_layers: JSON.stringify(
      Object.fromEntries(report.layers.map((l) => [l.name, [l.rank, Number(l.error.toPrecision(4))]])),
    ),
    ...(report.dropped.length > 0 ? { lora_dropped: JSON.stringify(report.dropped.map((d) => d.name)) } : {}),
  });
  file.commit();
}

const NEGLIGIBLE = 1e-5;

function expectFinite(name: string, t: Tensor): Tensor {
  if (t.numel > 0 && sampleReduce(t.view([1, t.numel]), "nonfinite")[0] > 0)
    throw new RcmError("E_NONFINITE", `${name} holds values that are not finite in ${t.dtype}`, { op: "export" });
  return t;
}

/** W_student - W_base in f32, as a matrix of rows; `change` is 0 exactly when they are equal. */
function differenceOf(
  device: Device,
  name: string,
  s: SourceTensor,
  b: SourceTensor,
): { difference: Tensor; change: number } {
  const before = b.load(device, "f32");
  const difference = expectFinite(name, s.load(device, "f32").axpy(before, -1));
  return { difference, change: Math.sqrt(squaresOf(difference)) / Math.max(Math.sqrt(squaresOf(before)), 1e-30) };
}

function biasDiffers(device: Device, bias: SourceTensor, base: ExportSource): boolean {
  const b = base.tensors.get(bias.name);
  if (!b || numel(b.shape) !== numel(bias.shape)) return false;
  using _scope = device.scope();
  return differenceOf(device, bias.name, bias, b).change > 0;
}

const matrixDiffers = (report: LoraReport, bias: string): boolean =>
  report.layers.some((l) => l.name === bias.replace(/bias$/, "weight"));

/** Factors of a matrix [N, K] in their stored dtype, padded with zeros to the rank, and their squared error. */
function factorise(
  difference: Tensor,
  rank: number,
  dtype: DType,
): { down: Tensor; up: Tensor; sigma: number; squares: number; errors: number } {
  const { device } = difference;
  const [N, K] = [difference.shape[0], difference.numel / difference.shape[0]];
  const found = lowRank(difference.view([N, K]).to("f64"), rank);
  const [down, up] = [device.zeros([rank, K], dtype), device.zeros([N, rank], dtype)];
  if (!found) return { down, up, sigma: 0, squares: 0, errors: 0 };
  const r = found.sigma.length;
  down.window(0, [r, K]).set(found.down);
  up.set(padded(found.up, rank));
  expectFinite("a factor", down);
  expectFinite("a factor", up);
  return {
    down,
    up,
    sigma: found.sigma.filter((s) => s > NEGLIGIBLE * found.sigma[0]).length,
    squares: squaresOf(difference),
    errors: missed(difference.view([N, K]), up, down),
  };
}

/** Appends zero columns, by a product with a truncated identity matrix. */
function padded(up: Tensor, rank: number): Tensor {
  const r = up.shape[1];
  if (r === rank) return up;
  const identity = new Float64Array(r * rank);
  for (let i = 0; i < r; i++) identity[i * rank + i] = 1;
  return times(up, up.device.fromValues(identity, [r, rank], "f64"));
}

/** ||D - up down||^2. */
function missed(difference: Tensor, up: Tensor, down: Tensor): number {
  using _scope = difference.device.scope();
  const rest = times(up.to("f64"), down.to("f64"));
  return squaresOf(rest.axpy(difference, -1));
}

/** Recomputes every layer's error from the file. Throws: E_INTERNAL naming a layer whose error differs. */
function verifyFactors(
  path: string,
  factors: Factors[],
  { device, student, base }: { device: Device; student: ExportSource; base: ExportSource },
): void {
  const { tensors } = openCheckpoint(path);
  for (const f of factors) {
    if (f.squares === 0) continue;
    using _scope = device.scope();
    const [down, up] = [f.down, f.up].map((key) => {
      const t = tensors.get(key);
      if (!t) throw new RcmError("E_INTERNAL", `${path} lacks ${key}`, { op: "export" });
      const into = device.empty(t.shape, "f64");
      readStored(t, into);
      return into;
    });
    const { difference } = differenceOf(
      device,
      f.name,
      student.tensors.get(f.name) as SourceTensor,
      base.tensors.get(f.name) as SourceTensor,
    );
    const again = missed(difference.view([up.shape[0], down.shape[1]]), up, down);
    if (Math.abs(again - f.errors) > 1e-6 * f.squares)
      throw new RcmError("E_INTERNAL", `${f.name} read back has another error`, {
        op: "export",
        want: relativeNorm(f.errors, f.squares),
        got: relativeNorm(again, f.squares),
      });
  }
}
