import { dtypeBytes, hostTensor, numel, type DType } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { WINDOW, type TensorStream } from "../io/tensor_stream.ts";
import { sampleReduce, type Device, type Tensor } from "../tensor.ts";
import type { SourceTensor } from "./source.ts";

export const OUT_DTYPES = ["bf16", "f16", "f32", "f8_e4m3"] as const;
export type OutDType = (typeof OUT_DTYPES)[number];

/** A tensor of the output. Its digest is known once its chunks have been read. */
export interface OutTensor extends TensorStream {
  digest: () => bigint;
}

/** The only buffer of that size in host memory; its contents are valid until the next use. */
export const window = new Uint8Array(new ArrayBuffer(WINDOW));

export function* deviceChunks(t: Tensor): Generator<Uint8Array> {
  yield* t.hostChunks(WINDOW, window);
}

/** Digest of a tensor's bytes, in pieces of WINDOW bytes; the last one may be shorter. */
export const digest = (chunk: Uint8Array, more: bigint): bigint => Bun.hash.wyhash(chunk, more);

/** A stream that computes the digest of its bytes. */
export function digested(stream: TensorStream, onDone: (bytes: number) => void = () => {}): OutTensor {
  let seen: bigint | null = null;
  return {
    ...stream,
    *chunks() {
      let d = 0n;
      for (const chunk of stream.chunks()) {
        d = digest(chunk, d);
        yield chunk;
      }
      seen = d;
      onDone(stream.bytes);
    },
    digest() {
      if (seen === null) throw new RcmError("E_INTERNAL", `${stream.name} was never written`, { op: "export" });
      return seen;
    },
  };
}

/** Rounding error ||W - written|| / ||W|| of all tensors whose dtype changed together, and of the worst one. */
export interface Rounding {
  relative: number;
  worst: { name: string; relative: number } | null;
}

export class RoundingSum {
  private squares = 0;
  private errors = 0;
  private worst: Rounding["worst"] = null;

  add(name: string, squares: number, errors: number): void {
    this.squares += squares;
    this.errors += errors;
    const relative = relativeNorm(errors, squares);
    if (relative > (this.worst?.relative ?? 0)) this.worst = { name, relative };
  }
  get result(): Rounding {
    return { relative: relativeNorm(this.errors, this.squares), worst: this.worst };
  }
}

/** ||error|| / ||value|| of their sums of squares; 0 where the value is 0. */
export const relativeNorm = (errors: number, squares: number): number =>
  squares === 0 ? 0 : Math.sqrt(errors / squares);

/** Sum of squares of all elements. */
export const squaresOf = (t: Tensor): number => sampleReduce(t.view([1, t.numel]), "squares")[0];

/** The smallest power of two with max |W| / scale <= 448: division by it is exact, and so is bf16(f8 * scale). */
export function f8Scale(largest: number): number {
  if (largest === 0) return 1;
  let scale = 2 ** Math.ceil(Math.log2(largest / 448));
  while (largest / scale > 448) scale *= 2;
  while (largest / (scale / 2) <= 448) scale /= 2;
  return Math.max(scale, 2 ** -126);
}

/**
 * A tensor in the output dtype, or in f8 with its scale; the caller's scope frees `from`. Throws: E_NONFINITE naming
 * it.
 */
export function converted(name: string, from: Tensor, dtype: DType, sum: RoundingSum): { out: Tensor; scale: number } {
  const { device } = from;
  const out = dtype === from.dtype ? from : device.empty(from.shape, dtype);
  let scale = 1;
  if (dtype === "f8_e4m3") {
    const largest = sampleReduce(from.view([1, from.numel]), "max")[0];
    scale = Number.isFinite(largest) ? f8Scale(largest) : 1;
  }
  if (out !== from) out.set(from, scale);
  const tested = dtype === "f8_e4m3" ? from : out;
  if (out.numel > 0 && sampleReduce(tested.view([1, out.numel]), "nonfinite")[0] > 0) {
    throw new RcmError("E_NONFINITE", `${name} holds values that are not finite${dtype === "f16" ? " in f16" : ""}`, {
      op: "export",
      got: dtype,
    });
  }
  if (dtype !== from.dtype) {
    using _scope = device.scope();
    const back = device.empty(from.shape, "f32");
    back.set(out, scale);
    sum.add(name, squaresOf(from), squaresOf(back.axpy(from, -1)));
  } else sum.add(name, 0, 0);
  return { out, scale };
}

export interface ConvertOptions {
  dtype: OutDType;
  /** The key of an original name. */
  key: (name: string) => string;
  /** Output shape of a tensor. */
  shape: (name: string, shape: readonly number[]) => readonly number[];
  /** Whether a weight is stored in f8 when the output is f8. */
  blockMatrix: (name: string) => boolean;
  /** Markers that ComfyUI's loader expects with f8 weights. */
  quantNotes: boolean;
  sum: RoundingSum;
  onDone?: (bytes: number) => void;
}

/** The tensors of an output, in the order of the source; each is read, converted and freed while it is written. */
export function convertAll(device: Device, tensors: Iterable<SourceTensor>, o: ConvertOptions): OutTensor[] {
  const out: OutTensor[] = [];
  const put = (stream: TensorStream): void => void out.push(digested(stream, o.onDone));
  for (const t of tensors) {
    const f8 = o.dtype === "f8_e4m3" && o.blockMatrix(t.name);
    const dtype: DType = o.dtype !== "f8_e4m3" ? o.dtype : f8 ? "f8_e4m3" : "bf16";
    const [name, shape] = [o.key(t.name), o.shape(t.name, t.shape)];
    let scale = 1;
    put({
      name, dtype, shape,
      bytes: numel(shape) * dtypeBytes(dtype),
      *chunks() {
        using _scope = device.scope();
        const from = t.load(device, t.dtype === dtype && !f8 ? dtype : "f32");
        const result = converted(t.name, from, dtype, o.sum);
        scale = result.scale;
        yield* deviceChunks(result.out);
      },
    });
    if (!f8) continue;
    put({
      name: `${name}_scale`,
      dtype: "f32",
      shape: [],
      bytes: 4,
      chunks: () => [hostTensor("f32", [], [scale]).data],
    });
    if (o.quantNotes) {
      const note = new TextEncoder().encode(
        JSON.stringify({ format: "float8_e4m3fn", full_precision_matrix_mult: true }),
      );
      put({
        name: name.replace(/\.weight$/, ".comfy_quant"),
        dtype: "u8",
        shape: [note.length],
        bytes: note.length,
        chunks: () => [note],
      });
    }
  }
  return out;
}
