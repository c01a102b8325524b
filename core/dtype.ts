import { RcmError } from "./error.ts";
import type { Code } from "../ffi/call.ts";

/** Storage types. Ops compute in the first four only. */
export type DType = "f32" | "bf16" | "f16" | "f64" | "i32" | "i64" | "u8" | "bool" | "f8_e4m3";

/** Codes of `rcm_dtype` in rcm.h (8 exists in core only: no op takes it), and bytes per element. */
const TABLE: Record<DType, { code: Code; bytes: number }> = {
  f32: { code: 0, bytes: 4 },
  bf16: { code: 1, bytes: 2 },
  f16: { code: 2, bytes: 2 },
  f64: { code: 3, bytes: 8 },
  i32: { code: 4, bytes: 4 },
  i64: { code: 5, bytes: 8 },
  u8: { code: 6, bytes: 1 },
  bool: { code: 7, bytes: 1 },
  f8_e4m3: { code: 8, bytes: 1 },
};

export const dtypeCode = (dtype: DType): Code => TABLE[dtype].code;
export const dtypeBytes = (dtype: DType): number => TABLE[dtype].bytes;
export const isFloat = (dtype: DType): boolean => TABLE[dtype].code <= 3;

/** A contiguous row-major tensor in host memory, as raw little-endian bytes. Readers return it, writers take it. */
export interface HostTensor {
  dtype: DType;
  shape: number[];
  /** Exactly product(shape) * dtypeBytes(dtype) bytes; may be a window into a larger buffer. */
  data: Uint8Array;
}

export const numel = (shape: readonly number[]): number => shape.reduce((n, d) => n * d, 1);

/** Builds a HostTensor from numbers. Throws: E_SHAPE if the counts differ. */
export function hostTensor(dtype: DType, shape: number[], values: ArrayLike<number>): HostTensor {
  const n = numel(shape);
  if (values.length !== n) {
    throw new RcmError("E_SHAPE", "values do not fill the shape", { op: "hostTensor", want: n, got: values.length });
  }
  const buffer = new ArrayBuffer(n * dtypeBytes(dtype));
  const data = new Uint8Array(buffer);
  if (dtype === "f32") new Float32Array(buffer).set(values);
  else if (dtype === "f64") new Float64Array(buffer).set(values);
  else if (dtype === "i32") new Int32Array(buffer).set(values);
  else if (dtype === "u8" || dtype === "bool") data.set(values);
  else if (dtype === "i64") {
    const out = new BigInt64Array(buffer);
    for (let i = 0; i < n; i++) out[i] = BigInt(values[i]);
  } else if (dtype === "f8_e4m3") {
    for (let i = 0; i < n; i++) data[i] = toF8Bits(values[i]);
  } else {
    const out = new Uint16Array(buffer);
    const round = dtype === "bf16" ? toBf16Bits : toF16Bits;
    for (let i = 0; i < n; i++) out[i] = round(values[i]);
  }
  return { dtype, shape, data };
}

/** Reads a HostTensor's elements as doubles (i64 beyond 2^53 loses precision). */
export function hostValues(t: HostTensor): Float64Array {
  const n = numel(t.shape);
  const bytes = t.data.byteOffset % 8 === 0 ? t.data : t.data.slice();
  const { buffer, byteOffset } = bytes;
  const out = new Float64Array(n);
  if (t.dtype === "f32") out.set(new Float32Array(buffer, byteOffset, n));
  else if (t.dtype === "f64") out.set(new Float64Array(buffer, byteOffset, n));
  else if (t.dtype === "i32") out.set(new Int32Array(buffer, byteOffset, n));
  else if (t.dtype === "u8" || t.dtype === "bool") out.set(bytes);
  else if (t.dtype === "i64") {
    const view = new BigInt64Array(buffer, byteOffset, n);
    for (let i = 0; i < n; i++) out[i] = Number(view[i]);
  } else if (t.dtype === "f8_e4m3") {
    for (let i = 0; i < n; i++) out[i] = fromF8Bits(bytes[i]);
  } else {
    const view = new Uint16Array(buffer, byteOffset, n);
    const widen = t.dtype === "bf16" ? fromBf16Bits : fromF16Bits;
    for (let i = 0; i < n; i++) out[i] = widen(view[i]);
  }
  return out;
}

const scratch = new ArrayBuffer(4);
const asF32 = new Float32Array(scratch);
const asU32 = new Uint32Array(scratch);

/** Round to nearest even; NaN stays a quiet NaN. The double is first rounded to f32. */
export function toBf16Bits(value: number): number {
  asF32[0] = value;
  const bits = asU32[0];
  if ((bits & 0x7fffffff) > 0x7f800000) return ((bits >>> 16) | 0x40) & 0xffff;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

export function fromBf16Bits(bits: number): number {
  asU32[0] = (bits << 16) >>> 0;
  return asF32[0];
}

const asF16 = new Float16Array(1);
const f16Bits = new Uint16Array(asF16.buffer);

export function toF16Bits(value: number): number {
  asF16[0] = value;
  return f16Bits[0];
}

export function fromF16Bits(bits: number): number {
  f16Bits[0] = bits;
  return asF16[0];
}

/** f8_e4m3 (no infinities): round to nearest even, saturate at 448, keep NaN. */
export function toF8Bits(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x80 : 0;
  const a = Math.abs(value);
  if (Number.isNaN(a)) return 0x7f;
  if (a >= 448) return sign | 0x7e;
  // Subnormals have a spacing of 2^-9 below 2^-6; normal numbers have three mantissa bits.
  const e = Math.max(-6, Math.floor(Math.log2(a)));
  const steps = a * 2 ** (3 - e);
  const low = Math.floor(steps);
  const rest = steps - low;
  const rounded = rest > 0.5 || (rest === 0.5 && low % 2 === 1) ? low + 1 : low;
  return sign | ((e + 6) * 8 + rounded);
}

export function fromF8Bits(code: number): number {
  const [e, m] = [(code >> 3) & 15, code & 7];
  const a = (code & 0x7f) === 0x7f ? Number.NaN : e === 0 ? m * 2 ** -9 : (8 + m) * 2 ** (e - 10);
  return code & 0x80 ? -a : a;
}
