import { ptr } from "bun:ffi";
import { RcmError, type RcmCode } from "./error.ts";

/** Symbols as dlopen returns them; the generated code has their real signatures. */
export type Symbols = Record<string, (...args: any[]) => any>;

/**
 * Host memory handed to native code: an address, or a view whose address is taken right before the call. A typed array
 * of up to 1000 elements created without a buffer is in the collector's heap and moves when its `buffer` is first read,
 * so build a view that outlives the call over an existing ArrayBuffer.
 */
export type HostMemory = number | ArrayBufferView;

declare const device: unique symbol;
/** Address of device memory: a branded number, so that no count or code can be passed instead. */
export type Pointer = number & { readonly [device]: true };

/** Counts, kinds and other integers. */
export type Int = number;

/** Code of a storage type, `rcm_dtype` in rcm.h; 8 is f8, which exists in core only: ops refuse it. */
export type Code = 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8;

/** User-space addresses end here, exclusive: 2^47 on x86-64, 2^48 on arm64 (more only when asked for). */
const ADDRESS_LIMIT = 2 ** 48;

const wrong = (op: string, name: string, want: string, got: unknown): never => {
  throw new RcmError("E_ARG", `${name} is not acceptable`, { op, want, got: String(got) });
};

export function pointer(v: number, op: string, name: string): void {
  if (!(Number.isSafeInteger(v) && v > 0 && v < ADDRESS_LIMIT)) wrong(op, name, "a device pointer", v);
}

export function optionalPointer(v: number, op: string, name: string): void {
  if (!(Number.isSafeInteger(v) && v >= 0 && v < ADDRESS_LIMIT)) wrong(op, name, "a device pointer or 0", v);
}

export function int32(v: number, op: string, name: string): void {
  if (!(typeof v === "number" && (v | 0) === v)) wrong(op, name, "a 32-bit integer", v);
}

export function int64(v: number, op: string, name: string): void {
  if (!(Number.isSafeInteger(v) && v >= 0)) wrong(op, name, "an integer in [0, 2^53)", v);
}

export function finite(v: number, op: string, name: string): void {
  if (!Number.isFinite(v)) wrong(op, name, "a finite number", v);
}

export function host(v: HostMemory, op: string, name: string): number {
  if (typeof v === "number") {
    pointer(v, op, name);
    return v;
  }
  if (!ArrayBuffer.isView(v) || v.byteLength === 0) wrong(op, name, "a non-empty view of host memory", v);
  return ptr(v as Uint8Array) as unknown as number;
}

export const optionalHost = (v: HostMemory, op: string, name: string): number => (v === 0 ? 0 : host(v, op, name));

const CODES: Record<number, RcmCode> = {
  1: "E_ARG",
  2: "E_SHAPE",
  3: "E_DTYPE",
  4: "E_OOM",
  5: "E_BACKEND",
  6: "E_INTERNAL",
  7: "E_IO",
};

/** Throws: RcmError with the library's own text. */
export function fail(status: number, op: string, symbols: Symbols): never {
  const text = String(symbols.rcm_last_error()).replace(/^\[[^\]]*\]\s*/, "");
  throw new RcmError(CODES[status] ?? "E_INTERNAL", text || `status ${status}`, { op });
}
