import { dtypeBytes, dtypeCode, hostTensor, hostValues, numel, type DType, type HostTensor } from "./dtype.ts";
import { RcmError } from "./error.ts";
import { openBackend, type Backend, type DeviceChoice } from "../ffi/open.ts";
import type { Code, Pointer } from "../ffi/call.ts";
import {
  advance, alloc, download, free, memoryStats, readFileWindow, upload, type MemoryStats,
} from "../ffi/memory.ts";
import type { Rcm } from "../ffi/rcm.gen.ts";

export type { DeviceName } from "../ffi/open.ts";

/** One allocation of device memory, owned by exactly one scope and shared by views. */
export class Storage {
  scope: Scope | null;
  constructor(
    readonly device: Device,
    readonly ptr: Pointer,
    readonly bytes: number,
    scope: Scope,
  ) {
    this.scope = scope;
    scope.owned.add(this);
  }

  free(): void {
    if (this.scope === null) return;
    this.scope.owned.delete(this);
    this.scope = null;
    free(this.device.lib, this.ptr);
  }
}

/** Frees on exit what was allocated while it was the innermost scope, except tensors that were kept. */
export class Scope implements Disposable {
  readonly owned = new Set<Storage>();
  constructor(
    readonly device: Device,
    readonly parent: Scope | null,
  ) {}

  /** Moves a tensor to the enclosing scope, so that it outlives this one. */
  keep<T extends Tensor | null>(tensor: T): T {
    const storage = tensor?.storage;
    if (storage && storage.scope === this) {
      const parent = this.parent;
      if (parent === null) throw new RcmError("E_INTERNAL", "the root scope has no parent", { op: "scope.keep" });
      this.owned.delete(storage);
      storage.scope = parent;
      parent.owned.add(storage);
    }
    return tensor;
  }

  free(): void {
    for (const storage of [...this.owned]) storage.free();
  }

  [Symbol.dispose](): void {
    this.free();
    this.device.leave(this);
  }
}

/** A backend with its allocation scopes: the only way from core to native code. */
export class Device implements Disposable {
  readonly lib: Rcm;
  readonly root: Scope;
  private top: Scope;
  private closed = false;

  constructor(readonly backend: Backend) {
    this.lib = backend.lib;
    this.root = new Scope(this, null);
    this.top = this.root;
  }

  /** Opens the backend. Throws: E_BACKEND when no library fits. */
  static open(choice: DeviceChoice): Device {
    return new Device(openBackend(choice));
  }

  scope(): Scope {
    return (this.top = new Scope(this, this.top));
  }

  /** Makes a scope's parent the innermost one again. Inner scopes that an error left open are freed too. */
  leave(scope: Scope): void {
    const inner: Scope[] = [];
    for (let at: Scope | null = this.top; at !== null; at = at.parent) {
      if (at !== scope) {
        inner.push(at);
        continue;
      }
      this.top = scope.parent ?? this.root;
      for (const dead of inner) dead.free();
      return;
    }
  }

  /** Runs `body` in a scope and frees what it allocated, except the tensor it returns. */
  keep<T extends Tensor | null>(body: () => T): T {
    using scope = this.scope();
    return scope.keep(body());
  }

  /** Runs `make`; its allocations live until the device is closed (parameters, optimizer state). */
  persistent<T>(make: () => T): T {
    const before = this.top;
    this.top = this.root;
    try {
      return make();
    } finally {
      this.top = before;
    }
  }

  /** Shapes: -> shape, uninitialised. Throws: E_OOM; E_INTERNAL on a closed device, whose tensors are all freed. */
  empty(shape: readonly number[], dtype: DType): Tensor {
    if (this.closed) throw new RcmError("E_INTERNAL", "the device is closed", { op: "alloc" });
    const bytes = numel(shape) * dtypeBytes(dtype);
    const storage = new Storage(this, alloc(this.lib, Math.max(bytes, 1)), bytes, this.top);
    return new Tensor(storage, storage.ptr, shape, dtype);
  }

  zeros(shape: readonly number[], dtype: DType): Tensor {
    return this.empty(shape, dtype).zero();
  }

  fromHost(host: HostTensor): Tensor {
    const t = this.empty(host.shape, host.dtype);
    upload(this.lib, t.ptr, host.data);
    return t;
  }

  /** Uploads host doubles as a tensor of any dtype. */
  fromValues(values: ArrayLike<number>, shape: readonly number[], dtype: DType): Tensor {
    return this.fromHost(hostTensor(dtype, [...shape], values));
  }

  /** Standard normal values; element i depends only on (seed, stream, i). Source: Philox4x32-10, see rcm.h. */
  randn(shape: readonly number[], dtype: DType, seed: number, stream: number): Tensor {
    return this.empty(shape, dtype).setRandn(seed, stream);
  }

  /**
   * Standard normal values. Row b of the first axis comes from stream `stream + b * stride`, so that a row does not
   * depend on its batch.
   */
  randnRows(shape: readonly number[], dtype: DType, key: { seed: number; stream: number; stride: number }): Tensor {
    const t = this.empty(shape, dtype);
    const rows = shape[0];
    this.lib.randn({
      out: t.ptr, rows, n: rows === 0 ? 0 : t.numel / rows, seed: key.seed, stream: key.stream,
      streamStep: key.stride, offset: 0, dtype: t.code,
    });
    return t;
  }

  /**
   * Runs `body` with f32 matmuls computed from bf16 high and low parts, where the backend supports that (see
   * rcm_f32_products).
   */
  splitProducts<T>(body: () => T): T {
    this.lib.f32Products(1);
    try {
      return body();
    } finally {
      this.lib.f32Products(0);
    }
  }

  /** Blocks until all queued work has completed. */
  sync(): void {
    this.lib.sync();
  }

  /** Returns cached free memory to the system. */
  trim(): void {
    this.lib.memoryTrim();
  }

  /** Makes results bitwise reproducible between runs; see rcm_deterministic. */
  setDeterministic(on: boolean): void {
    this.lib.deterministic(Number(on));
  }

  /** Resets the peak of memory() to the current use. */
  resetPeak(): void {
    this.lib.memoryResetPeak();
  }

  memory(): MemoryStats {
    return memoryStats(this.lib);
  }

  /** Frees every tensor that belongs to no inner scope, and allows no more. */
  [Symbol.dispose](): void {
    for (const storage of [...this.root.owned]) storage.free();
    this.closed = true;
  }
}

/** A contiguous row-major tensor on a device; a handle that does not own its memory. */
export class Tensor {
  readonly device: Device;
  readonly numel: number;
  constructor(
    readonly storage: Storage,
    readonly ptr: Pointer,
    readonly shape: readonly number[],
    readonly dtype: DType,
  ) {
    this.device = storage.device;
    this.numel = numel(shape);
  }

  get code(): Code {
    return dtypeCode(this.dtype);
  }
  get bytes(): number {
    return this.numel * dtypeBytes(this.dtype);
  }

  /** The same memory under another shape. Throws: E_SHAPE if the counts differ. */
  view(shape: readonly number[]): Tensor {
    if (numel(shape) !== this.numel) {
      throw new RcmError("E_SHAPE", "a view keeps the number of elements", {
        op: "view",
        want: this.shape,
        got: shape,
      });
    }
    return new Tensor(this.storage, this.ptr, shape, this.dtype);
  }

  /** A view of `shape` that starts `offset` elements into this tensor. Throws: E_SHAPE outside it. */
  window(offset: number, shape: readonly number[]): Tensor {
    const n = numel(shape);
    if (offset < 0 || offset + n > this.numel) {
      throw new RcmError("E_SHAPE", "window outside the tensor", { op: "window", want: this.numel, got: offset + n });
    }
    return new Tensor(this.storage, advance(this.ptr, offset * dtypeBytes(this.dtype)), shape, this.dtype);
  }

  zero(): this {
    if (this.bytes > 0) this.device.lib.zero({ dst: this.ptr, bytes: this.bytes });
    return this;
  }

  /**
   * Overwrites with standard normal values: element i is value `offset + i` of the stream. `offset` is a multiple of 4.
   */
  setRandn(seed: number, stream: number, offset = 0): this {
    this.device.lib.randn({
      out: this.ptr, rows: 1, n: this.numel, seed, stream, streamStep: 0, offset, dtype: this.code,
    });
    return this;
  }

  fill(value: number): this {
    this.device.lib.fill({ out: this.ptr, n: this.numel, value, dtype: this.code });
    return this;
  }

  /**
   * Copies or converts another tensor of the same count into this one. `scale` belongs to the f8 tensor of the two:
   * value = element * scale.
   */
  set(from: Tensor, scale = 1): this {
    if (from.numel !== this.numel) {
      throw new RcmError("E_SHAPE", "copy between different counts", { op: "set", want: this.numel, got: from.numel });
    }
    const { lib } = this.device;
    const call = { dst: this.ptr, src: from.ptr, n: this.numel, srcDtype: from.code, dstDtype: this.code, scale };
    if (from.dtype === this.dtype) lib.copy({ dst: this.ptr, src: from.ptr, bytes: this.bytes, kind: 2 });
    else if (from.dtype === "f8_e4m3") lib.f8Decode(call);
    else if (this.dtype === "f8_e4m3") lib.f8Encode(call);
    else lib.cast(call);
    return this;
  }

  setHost(host: HostTensor): this {
    if (numel(host.shape) !== this.numel) {
      throw new RcmError("E_SHAPE", "host values do not fill the tensor", {
        op: "setHost",
        want: this.shape,
        got: host.shape,
      });
    }
    if (host.dtype === this.dtype) {
      upload(this.device.lib, this.ptr, host.data);
      return this;
    }
    using _scope = this.device.scope();
    return this.set(this.device.fromHost(host));
  }

  to(dtype: DType): Tensor {
    return dtype === this.dtype ? this : this.device.empty(this.shape, dtype).set(this);
  }

  /** this += a * other. */
  axpy(other: Tensor, a = 1): this {
    this.device.lib.axpy({ x: other.ptr, y: this.ptr, n: this.numel, a, xDtype: other.code, yDtype: this.code });
    return this;
  }

  /** Fills the tensor with bytes of a file, in its own dtype. Throws: E_IO naming the file. */
  setFile(path: string, offset: number): this {
    readFileWindow(this.device.lib, this.ptr, { path, offset, bytes: this.bytes });
    return this;
  }

  /** Blocks for the device and copies to the host. */
  toHost(): HostTensor {
    const data = new Uint8Array(new ArrayBuffer(this.bytes));
    if (this.bytes > 0) download(this.device.lib, this.ptr, data);
    return { dtype: this.dtype, shape: [...this.shape], data };
  }

  /** The tensor's bytes in chunks of at most `limit`, in order; each chunk reuses the same buffer. */
  *hostChunks(
    limit = 1 << 26, buffer = new Uint8Array(new ArrayBuffer(Math.min(limit, this.bytes))),
  ): Generator<Uint8Array> {
    for (let at = 0; at < this.bytes; at += limit) {
      const piece = buffer.subarray(0, Math.min(limit, this.bytes - at));
      download(this.device.lib, advance(this.ptr, at), piece);
      yield piece;
    }
  }

  /** Fills the tensor in chunks, in order: `next(buffer, at)` fills a buffer with the bytes from offset `at`. */
  setChunks(next: (buffer: Uint8Array, at: number) => void, limit = 1 << 26): this {
    const buffer = new Uint8Array(new ArrayBuffer(Math.min(limit, this.bytes)));
    for (let at = 0; at < this.bytes; at += limit) {
      const piece = buffer.subarray(0, Math.min(limit, this.bytes - at));
      next(piece, at);
      upload(this.device.lib, advance(this.ptr, at), piece);
    }
    return this;
  }

  values(): Float64Array {
    return hostValues(this.toHost());
  }

  free(): void {
    this.storage.free();
  }
}

/** Address of an optional tensor; 0 for none. */
export const ptrOf = (t: Tensor | null | undefined): Pointer | 0 => t?.ptr ?? 0;

/** The dtype of norm statistics, modulation and parameter gradients for activations of `dtype` (see rcm.h). */
export const statDType = (dtype: DType): DType => (dtype === "f64" ? "f64" : "f32");

/** Throws: E_SHAPE unless `tensor` has exactly `want`; -1 matches any size. */
export function expectShape(op: string, name: string, tensor: Tensor, want: readonly number[]): void {
  const same = tensor.shape.length === want.length && want.every((d, i) => d === -1 || d === tensor.shape[i]);
  if (!same) throw new RcmError("E_SHAPE", `${name} has the wrong shape`, { op, want, got: tensor.shape });
}

/** Throws: E_DTYPE unless `tensor` has one of the dtypes. */
export function expectDType(op: string, name: string, tensor: Tensor, ...want: DType[]): void {
  if (!want.includes(tensor.dtype)) {
    throw new RcmError("E_DTYPE", `${name} has the wrong dtype`, { op, want: want.join("|"), got: tensor.dtype });
  }
}

/** Throws: E_SHAPE or E_DTYPE unless `tensor` has shape and dtype of `like`. */
export function expectLike(op: string, name: string, tensor: Tensor, like: Tensor): void {
  if (tensor.dtype !== like.dtype) expectDType(op, name, tensor, like.dtype);
  expectShape(op, name, tensor, like.shape);
}

/** Codes of `kind` in rcm_sample_reduce. */
const REDUCE = { sum: 0, abs: 1, squares: 2, max: 3, nonfinite: 4 } as const;

/** Reduces each sample of a [B, ...] tensor to one f64 on the host. Shapes: x [B, ...] -> [B]. */
export function sampleReduce(x: Tensor, kind: keyof typeof REDUCE): Float64Array {
  using _scope = x.device.scope();
  return sampleReduceInto(x, kind, x.device.empty([x.shape[0] ?? 1], "f64")).values();
}

/** The same, with the result on the device. Shapes: x [B, ...], out [B] f64. */
export function sampleReduceInto(x: Tensor, kind: keyof typeof REDUCE, out: Tensor): Tensor {
  const B = x.shape[0] ?? 1;
  x.device.lib.sampleReduce({
    x: x.ptr, out: out.ptr, B, N: B === 0 ? 0 : x.numel / B, kind: REDUCE[kind], dtype: x.code,
  });
  return out;
}
