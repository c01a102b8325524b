import { dtypeBytes, numel, type DType } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { writeFileAtomic } from "./atomic.ts";

/** safetensors whose tensors pass through in pieces: host memory stays small however large the file. */

const CODES: Partial<Record<DType, string>> = { f32: "F32", bf16: "BF16", f16: "F16", f64: "F64", i32: "I32", i64: "I64", u8: "U8", bool: "BOOL" };

/** A tensor to be written; `chunks` gives its bytes in order and may reuse one buffer. */
export interface TensorStream {
  name: string;
  dtype: DType;
  shape: readonly number[];
  chunks: () => Iterable<Uint8Array>;
}

/** Writes tensors in the order given, atomically, each asked for its bytes only when its turn comes. Throws: E_IO; E_ARG for two of one name. */
export function streamSafetensors(path: string, tensors: readonly TensorStream[], metadata: Record<string, string> = {}): number {
  const header: Record<string, unknown> = { __metadata__: metadata };
  let at = 0;
  for (const { name, dtype, shape } of tensors) {
    if (Object.hasOwn(header, name)) throw new RcmError("E_ARG", `two tensors are named "${name}"`, { op: "safetensors" });
    const bytes = numel(shape) * dtypeBytes(dtype);
    header[name] = { dtype: CODES[dtype], shape, data_offsets: [at, at + bytes] };
    at += bytes;
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const padded = new Uint8Array(new ArrayBuffer(8 + Math.ceil(text.length / 8) * 8)).fill(0x20);
  padded.set(text, 8);
  new DataView(padded.buffer).setBigUint64(0, BigInt(padded.length - 8), true);
  writeFileAtomic(path, (function* () {
    yield padded;
    for (const { name, dtype, shape, chunks } of tensors) {
      let left = numel(shape) * dtypeBytes(dtype);
      for (const chunk of chunks()) {
        left -= chunk.length;
        yield chunk;
      }
      if (left !== 0) throw new RcmError("E_INTERNAL", `${name} gave ${left} bytes too few`, { op: "safetensors" });
    }
  })());
  return padded.length + at;
}
